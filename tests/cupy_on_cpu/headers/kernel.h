// CUDA's device language for g++: what a kernel may use without including anything.
//
// CuPy writes CUDA C++ and hands it to NVRTC, which has no standard library. Here g++ compiles the same text with
// this header in front of it. Like NVRTC this header brings no standard library either: to parse one for each of some
// hundred kernels would take longer than all the rest.
//
// A kernel needs an intrinsic that is missing here? g++ then names it; add it, with a test.
#pragma once
#include <initializer_list>

#define __CUDACC_RTC__           // CuPy's headers then include nothing from the standard library
#define __CUDACC_VER_MAJOR__ 12  // and take half precision from our cuda_fp16.h
#define __CUDA_ARCH__ 800        // and do not define atomicAdd of doubles

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ alignas(16) static  // one block runs at a time; `extern __shared__` is rewritten by toolchain.py
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define NULL 0

typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;

extern "C" [[noreturn]] void __assert_fail(const char*, const char*, unsigned, const char*) noexcept;
#define assert(condition) \
    (static_cast<bool>(condition) ? void() : __assert_fail(#condition, __FILE__, __LINE__, __func__))

#include "device_math.h"
#include "kernel_interface.h"

// ---- The thread that runs now

using cupy_on_cpu::blockDim;
using cupy_on_cpu::blockIdx;
using cupy_on_cpu::gridDim;
using cupy_on_cpu::threadIdx;
typedef cupy_on_cpu::Index dim3;
typedef cupy_on_cpu::Index uint3;
static const int warpSize = 32;

inline void __syncthreads() { cupy_on_cpu::wait_for_block(); }
inline void __syncwarp(unsigned mask = 0xffffffff) { cupy_on_cpu::wait_for_warp(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- Warp shuffles: publish a value, wait for the warp, read the slot of another lane, wait again

namespace cupy_on_cpu {

template <class T>
T read_lane(unsigned mask, T value, unsigned lane) {
    static_assert(sizeof(T) <= 16, "a shuffle slot holds 16 bytes");
    __builtin_memcpy(exchange[thread], &value, sizeof(T));
    wait_for_warp(mask);
    T found;
    __builtin_memcpy(&found, exchange[thread / 32 * 32 + lane], sizeof(T));
    wait_for_warp(mask);
    return found;
}

// The lane that a shuffle reads; out of the segment of `width` lanes it is the caller's own.
inline unsigned lane_within(int wanted, int width) {
    int lane = thread % 32, first = lane / width * width;
    return wanted < first || wanted >= first + width ? lane : wanted;
}

}  // namespace cupy_on_cpu

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    int lane = cupy_on_cpu::thread % 32;
    return cupy_on_cpu::read_lane(mask, value, lane / width * width + (source & (width - 1)));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = cupy_on_cpu::thread % 32;
    return cupy_on_cpu::read_lane(mask, value, cupy_on_cpu::lane_within(lane - int(delta), width));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = cupy_on_cpu::thread % 32;
    return cupy_on_cpu::read_lane(mask, value, cupy_on_cpu::lane_within(lane + int(delta), width));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    int lane = cupy_on_cpu::thread % 32;
    return cupy_on_cpu::read_lane(mask, value, cupy_on_cpu::lane_within(lane ^ lanes, width));
}

// ---- Atomics: threads take turns only at barriers, so nothing can come between

#define ATOMIC(name, T, expression)   \
    inline T name(T* address, T value) { \
        T old = *address;                 \
        *address = (expression);          \
        return old;                       \
    }
#define ATOMICS_OF_INTEGERS(T)                        \
    ATOMIC(atomicAdd, T, old + value)                 \
    ATOMIC(atomicExch, T, value)                      \
    ATOMIC(atomicMin, T, value < old ? value : old)   \
    ATOMIC(atomicMax, T, old < value ? value : old)   \
    ATOMIC(atomicAnd, T, old & value)                 \
    ATOMIC(atomicOr, T, old | value)                  \
    ATOMIC(atomicXor, T, old ^ value)                 \
    inline T atomicCAS(T* address, T compare, T value) { \
        T old = *address;                             \
        if (old == compare) *address = value;         \
        return old;                                   \
    }
ATOMICS_OF_INTEGERS(int)
ATOMICS_OF_INTEGERS(unsigned)
ATOMICS_OF_INTEGERS(unsigned long long)
ATOMIC(atomicSub, int, old - value)
ATOMIC(atomicSub, unsigned, old - value)
ATOMIC(atomicAdd, float, old + value)
ATOMIC(atomicAdd, double, old + value)
ATOMIC(atomicExch, float, value)
#undef ATOMIC
#undef ATOMICS_OF_INTEGERS

// ---- Entry: how the runtime starts one thread of a kernel, and which device memory the kernel was given

template <typename T, int ndim, bool c_contiguous, bool use_32bit_indexing>
class CArray;  // CuPy's array argument, defined in cupy/carray.cuh; its first member is the data pointer

namespace cupy_on_cpu {

template <class T>
const void* data_pointer(const T*) { return nullptr; }
template <class T>
const void* data_pointer(T* const* argument) { return *argument; }
template <class T, int n, bool c, bool i>
const void* data_pointer(const CArray<T, n, c, i>* argument) {
    return argument->size() ? *reinterpret_cast<void* const*>(argument) : nullptr;
}

template <class T>
struct Value { typedef T type; };
template <class T>
struct Value<const T> { typedef T type; };

template <auto kernel>
struct Entry;

template <class... P, void (*kernel)(P...)>
struct Entry<kernel> {
    template <int...>
    struct Positions {};

    template <int... i>
    static void call(void** arguments, Positions<i...>) {
        kernel(*static_cast<typename Value<P>::type*>(arguments[i])...);
    }
    template <int... i>
    static int collect(void** arguments, const void** found, Positions<i...>) {
        int count = 0;
        auto keep = [&](const void* pointer) { if (pointer) found[count++] = pointer; };
        (keep(data_pointer(static_cast<const typename Value<P>::type*>(arguments[i]))), ...);
        return count;
    }
    typedef Positions<__integer_pack(sizeof...(P))...> All;

    static void run_thread(void** arguments) { call(arguments, All()); }
    static int data_pointers(void** arguments, const void** found) { return collect(arguments, found, All()); }
    static constexpr unsigned sizes[] = {sizeof(P)..., 0};
    static constexpr Kernel describe(bool waits) { return {run_thread, data_pointers, sizeof...(P), waits, sizes}; }
};

}  // namespace cupy_on_cpu
