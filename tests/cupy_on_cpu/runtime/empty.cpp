// A library that is asked for and never used.
