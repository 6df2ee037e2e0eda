// In place of Thrust's header, of which cupy/complex/namespace.h uses two macros.
#pragma once
#define THRUST_NAMESPACE_BEGIN namespace thrust {
#define THRUST_NAMESPACE_END }
