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
    illegal_state = 401,
    not_found = 500,
    not_ready = 600,
    illegal_address = 700,
    launch_failure = 719,
    capture_unsupported = 900,
    capture_invalidated = 901,
    capture_merge = 902,
    capture_unmatched = 903,
    capture_unjoined = 904,
    capture_isolation = 905,
    capture_implicit = 906,
    captured_event = 907,
    capture_wrong_thread = 908,
};

// Sets CUDARuntimeError and returns NULL, which every kind of entry point may return for an error.
// `detail`, in the manner of printf, says what a real device would leave unsaid.
PyObject* cuda_error(Status status, const char* detail, ...) __attribute__((format(printf, 2, 3)));


// The same, with what it means for streams, events and captures.
PyObject* capture_error(int status);

// False, with the error set, for a stream of another device than the current one, and where a capture refuses work.
bool usable(intptr_t stream);
