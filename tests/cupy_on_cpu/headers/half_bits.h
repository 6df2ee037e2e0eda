// IEEE half precision and bfloat16 in software: one rounding, to nearest, ties to even.
#pragma once

namespace cupy_on_cpu {

// A double holds every float, so this one function rounds both as CUDA and NumPy do.
inline unsigned short half_bits(double value) {
    unsigned short sign = __builtin_signbit(value) ? 0x8000 : 0;
    double size = __builtin_fabs(value);
    if (__builtin_isnan(value)) return sign | 0x7e00;
    if (size >= 65520.0) return sign | 0x7c00;  // half way above the largest half: infinity
    if (size == 0.0) return sign;
    int exponent;
    __builtin_frexp(size, &exponent);
    int quantum = exponent - 11 < -24 ? -24 : exponent - 11;  // 11 significant bits, fewer where subnormal
    double digits = __builtin_nearbyint(__builtin_ldexp(size, -quantum));
    // From 1024 to 2048 the leading bit of `digits` carries into the exponent field, as IEEE meant it to.
    return sign | (((quantum + 24) << 10) + static_cast<int>(digits));
}

inline float half_value(unsigned short bits) {
    int exponent = bits >> 10 & 31, digits = bits & 1023;
    float size = exponent == 31 ? (digits ? __builtin_nanf("") : __builtin_inff())
                 : exponent     ? __builtin_ldexpf(1024 + digits, exponent - 25)
                                : __builtin_ldexpf(digits, -24);
    return bits & 0x8000 ? -size : size;
}

inline unsigned short bfloat16_bits(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, 4);
    if (__builtin_isnan(value)) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline float bfloat16_value(unsigned short bits) {
    unsigned wide = static_cast<unsigned>(bits) << 16;
    float value;
    __builtin_memcpy(&value, &wide, 4);
    return value;
}

}  // namespace cupy_on_cpu
