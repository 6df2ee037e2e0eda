// Errors as CuPy raises them.
#pragma once
#include <Python.h>
#include <cstdint>

// Those of `enum cudaError` that the emulation reports. The driver numbers them alike.
enum Status {
    invalid_value = 1,
    memory_allocation = 2,
    invalid_device = 101,
    invalid_image = 200,
    invalid_handle = 400,
    not_found = 500,
    illegal_address = 700,
    launch_failure = 719,
};

// Sets CUDARuntimeError and returns NULL, which every kind of entry point may return for an error.
// `detail`, in the manner of printf, says what a real device would leave unsaid.
PyObject* cuda_error(Status status, const char* detail, ...) __attribute__((format(printf, 2, 3)));

// False, with the error set, for a stream or an event of another device than the current one.
bool usable(intptr_t handle);
