// CUDA's arithmetic: the C library's functions, overloaded for float and double, and the bit-level intrinsics.
#pragma once

#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#define HUGE_VAL __builtin_huge_val()

namespace cupy_on_cpu {

template <class T>
constexpr bool is_integer = false;
#define INTEGER(T) \
    template <>    \
    constexpr bool is_integer<T> = true;
INTEGER(bool) INTEGER(char) INTEGER(signed char) INTEGER(unsigned char) INTEGER(short) INTEGER(unsigned short)
INTEGER(int) INTEGER(unsigned) INTEGER(long) INTEGER(unsigned long) INTEGER(long long) INTEGER(unsigned long long)
#undef INTEGER

template <class T>
constexpr bool is_number = is_integer<T>;
template <>
constexpr bool is_number<float> = true;
template <>
constexpr bool is_number<double> = true;

template <class A, class B>
constexpr bool is_same = false;
template <class A>
constexpr bool is_same<A, A> = true;

template <bool condition>
struct Requires {};
template <>
struct Requires<true> { typedef int type; };

}  // namespace cupy_on_cpu

#define REQUIRES(condition) typename cupy_on_cpu::Requires<condition>::type = 0

// ---- The C library: exp(double), expf(float), exp(float), and exp of an integer in double, as in CUDA

#define UNARY(name)                                             \
    extern "C" double name(double) noexcept;                    \
    extern "C" float name##f(float) noexcept;                   \
    inline float name(float x) { return name##f(x); }           \
    template <class T, REQUIRES(cupy_on_cpu::is_integer<T>)>    \
    double name(T x) { return name(static_cast<double>(x)); }

#define BINARY(name)                                                                 \
    extern "C" double name(double, double) noexcept;                                 \
    extern "C" float name##f(float, float) noexcept;                                 \
    inline float name(float x, float y) { return name##f(x, y); }                    \
    template <class A, class B,                                                      \
              REQUIRES(cupy_on_cpu::is_number<A> && cupy_on_cpu::is_number<B> &&     \
                       (cupy_on_cpu::is_integer<A> || !cupy_on_cpu::is_same<A, B>))> \
    double name(A x, B y) { return name(static_cast<double>(x), static_cast<double>(y)); }

UNARY(acos) UNARY(acosh) UNARY(asin) UNARY(asinh) UNARY(atan) UNARY(atanh) UNARY(cbrt) UNARY(ceil) UNARY(cos)
UNARY(cosh) UNARY(erf) UNARY(erfc) UNARY(exp) UNARY(exp10) UNARY(exp2) UNARY(expm1) UNARY(fabs) UNARY(floor)
UNARY(j0) UNARY(j1) UNARY(lgamma) UNARY(log) UNARY(log10) UNARY(log1p) UNARY(log2) UNARY(logb) UNARY(nearbyint)
UNARY(rint) UNARY(round) UNARY(sin) UNARY(sinh) UNARY(sqrt) UNARY(tan) UNARY(tanh) UNARY(tgamma) UNARY(trunc)
UNARY(y0) UNARY(y1)
BINARY(atan2) BINARY(copysign) BINARY(fdim) BINARY(fmax) BINARY(fmin) BINARY(fmod) BINARY(hypot) BINARY(nextafter)
BINARY(pow) BINARY(remainder)
#undef UNARY
#undef BINARY

extern "C" {
double fma(double, double, double) noexcept;
float fmaf(float, float, float) noexcept;
double frexp(double, int*) noexcept;
float frexpf(float, int*) noexcept;
double ldexp(double, int) noexcept;
float ldexpf(float, int) noexcept;
double modf(double, double*) noexcept;
float modff(float, float*) noexcept;
double scalbn(double, int) noexcept;
float scalbnf(float, int) noexcept;
long lrint(double) noexcept;
void sincos(double, double*, double*) noexcept;
void sincosf(float, float*, float*) noexcept;
}
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
inline float frexp(float x, int* exponent) { return frexpf(x, exponent); }
inline float ldexp(float x, int exponent) { return ldexpf(x, exponent); }
inline float modf(float x, float* whole) { return modff(x, whole); }
inline float scalbn(float x, int exponent) { return scalbnf(x, exponent); }

inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float rsqrt(float x) { return rsqrtf(x); }

extern "C" int abs(int) noexcept;
inline long abs(long x) { return __builtin_labs(x); }
inline long long abs(long long x) { return __builtin_llabs(x); }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }

inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isnan(double x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }
inline bool signbit(double x) { return __builtin_signbit(x); }

// ---- min and max: of floats they ignore a NaN, as CUDA's do; of mixed integers they compare in the common type

inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(double x, double y) { return fmax(x, y); }
inline double min(float x, double y) { return fmin(x, y); }
inline double min(double x, float y) { return fmin(x, y); }
inline double max(float x, double y) { return fmax(x, y); }
inline double max(double x, float y) { return fmax(x, y); }
template <class A, class B, REQUIRES(cupy_on_cpu::is_integer<A> && cupy_on_cpu::is_integer<B>)>
decltype(A() + B()) min(A x, B y) {
    decltype(A() + B()) left = x, right = y;
    return right < left ? right : left;
}
template <class A, class B, REQUIRES(cupy_on_cpu::is_integer<A> && cupy_on_cpu::is_integer<B>)>
decltype(A() + B()) max(A x, B y) {
    decltype(A() + B()) left = x, right = y;
    return left < right ? right : left;
}

// ---- Bits

namespace cupy_on_cpu {
template <class To, class From>
To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "not the same size");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}
}  // namespace cupy_on_cpu

inline float __int_as_float(int x) { return cupy_on_cpu::same_bits<float>(x); }
inline int __float_as_int(float x) { return cupy_on_cpu::same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return cupy_on_cpu::same_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return cupy_on_cpu::same_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return cupy_on_cpu::same_bits<double>(x); }
inline long long __double_as_longlong(double x) { return cupy_on_cpu::same_bits<long long>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }

template <class T>
T __ldg(const T* address) { return *address; }
