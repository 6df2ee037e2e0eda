// Runs the threads of a kernel, block after block, on the one CPU thread that launched it.
#pragma once
#include "kernel_interface.h"

// Returns nullptr, or what went wrong.
const char* run_blocks(const cupy_on_cpu::Kernel& kernel, void** arguments, cupy_on_cpu::Index grid,
                       cupy_on_cpu::Index block, unsigned shared_bytes);
