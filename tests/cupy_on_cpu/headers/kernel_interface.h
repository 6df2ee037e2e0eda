// What a compiled kernel and the runtime that runs it know of each other.
// Included by kernel.h, where there is no standard library, and by the runtime, where there is one.
#pragma once

namespace cupy_on_cpu {

struct Index {
    unsigned x, y, z;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs now

extern unsigned thread;                   // its number in the block, counted along x, then y, then z
extern unsigned char exchange[1024][16];  // a slot for each thread of a block: what it publishes in a shuffle
extern char* dynamic_shared_memory;       // of the size that the launch asked for

void wait_for_block();              // returns when every living thread of the block has called it
void wait_for_warp(unsigned mask);  // returns when every living thread of `mask` in the warp has called it

struct Kernel {
    void (*run_thread)(void** arguments);
    int (*data_pointers)(void** arguments, const void** found);  // device memory among the arguments
    int parameters;
    bool waits;  // for other threads
    const unsigned* sizes;  // of the parameters, in bytes: a captured launch keeps a copy of their values
};

}  // namespace cupy_on_cpu
