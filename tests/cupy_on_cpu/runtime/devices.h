// The emulated devices: which memory belongs to which of them, and what was done on them.
// Shared by the CUDA runtime (runtime.cpp), the driver (driver.cpp) and the cuBLAS stand-in (cublas.cpp).
#pragma once
#include <cstddef>
#include <cstdint>

// emulate.py reads and writes these by name; it has the same list of fields.
struct Counters {
    long launches, gemms, host_to_device, device_to_host, device_to_device, syncs, foreign, mallocs;
    long graph_launches, nodes, refused;
};
extern "C" {
extern Counters emulated_counters;
extern int emulated_device_count;
extern int emulated_peer_access;     // may a device read the memory of another?
extern size_t emulated_memory_size;  // of each device, in bytes
extern int emulated_replay_order;    // of a graph's nodes; see graphs.cpp
extern int emulated_cublas_handles;  // that live
}

extern thread_local int current_device;  // of each host thread, as in CUDA

constexpr int on_host = -1;  // in place of a device, for pinned memory

struct Allocation {
    uintptr_t begin;
    size_t size;
    int device;
    long serial;  // of all allocations: memory that was freed and is given out again is another one
};

void* allocate(size_t size, int device);  // nullptr where the device is full
bool release(const void* begin);          // false where no allocation begins
const Allocation* allocation_at(const void* address);
size_t bytes_used(int device);

// May a kernel or a product on the current device read and write here? Memory of another device is counted as foreign.
enum class Access { granted, refused, unknown };
Access access(const void* address);
