// In place of CUDA's header: the part of `half` that cupy/float16.cuh uses.
#pragma once
#include "half_bits.h"

struct __half_raw {
    unsigned short x;
};

struct __half {
    __half() = default;
    __half(const __half_raw& raw) : bits(raw.x) {}
    template <class Number>
    explicit __half(Number value) : bits(cupy_on_cpu::half_bits(static_cast<double>(value))) {}
    __half(float value) : bits(cupy_on_cpu::half_bits(value)) {}

    operator float() const { return cupy_on_cpu::half_value(bits); }
    operator __half_raw() const { return {bits}; }

    unsigned short bits;
};
typedef __half half;

inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half(__half_raw{bits}); }
