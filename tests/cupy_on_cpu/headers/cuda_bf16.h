// In place of CUDA's header: the part of `__nv_bfloat16` that cupy/bfloat16.cuh uses.
#pragma once
#include "half_bits.h"

struct __nv_bfloat16 {
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) : bits(cupy_on_cpu::bfloat16_bits(value)) {}
    operator float() const { return cupy_on_cpu::bfloat16_value(bits); }

    unsigned short bits;
};

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
    return __nv_bfloat16(cupy_on_cpu::bfloat16_value(bits));
}
inline bool __hisnan(__nv_bfloat16 value) { return __builtin_isnan(static_cast<float>(value)); }
inline bool __hisinf(__nv_bfloat16 value) { return __builtin_isinf(static_cast<float>(value)); }
