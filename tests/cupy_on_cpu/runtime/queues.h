// Streams whose work is held back until somebody waits for it: what a GPU may do at the latest.
#pragma once
#include "captures.h"

extern "C" int emulated_asynchronous;

// `blocking`: the stream and the legacy default stream wait for each other.
void enqueue(intptr_t stream, bool blocking, Node node);
Clock reached(intptr_t stream, bool blocking);                     // all that was put on the stream so far
void wait_in_stream(intptr_t stream, const Clock& event);          // what follows on the stream waits for that
bool is_done(const Clock& wanted);
bool run_until(const Clock& wanted);                               // false with an error set
bool run_all();
