// The CUDA runtime as cupy_backends.cuda.api.runtime exports it to CuPy's other modules.
//
// hooks.py puts each function runtime_X here in the place of X there, so names and parameters are CuPy's; the last
// parameter, `int`, is Cython's. Streams and events are in captures.cpp, graphs in graphs.cpp.
#include "captures.h"
#include "devices.h"
#include "errors.h"
#include "queues.h"

#include <cstdarg>
#include <cerrno>
#include <cstring>
#include <sys/uio.h>
#include <unistd.h>

namespace {

PyObject* none() { Py_RETURN_NONE; }

PyObject* waited() {
    emulated_counters.syncs++;
    return none();
}

// What the runtime module defines in Python: CUDARuntimeError, PointerAttributes.
PyObject* from_cupy(const char* name) {
    PyObject* module = PyImport_ImportModule("cupy_backends.cuda.api.runtime");
    PyObject* found = module ? PyObject_GetAttrString(module, name) : nullptr;
    Py_XDECREF(module);
    return found;
}

enum CopyKind { host_to_host, host_to_device, device_to_host, device_to_device, by_address };

// The device that holds these bytes, `on_host` for memory of the host; false where they leave an allocation.
bool holder(intptr_t address, size_t size, int& device) {
    const Allocation* found = allocation_at(reinterpret_cast<void*>(address));
    device = found ? found->device : on_host;
    return !found || address + size <= found->begin + found->size;
}

struct Copy {
    intptr_t target, source;
    size_t size;
    CopyKind kind;
};

// The copy, of the kind that it is by its addresses; false with an error set where it is not the kind that was asked.
bool check(intptr_t target, intptr_t source, size_t size, int kind, Copy& found) {
    int to, from;
    if (!holder(target, size, to) || !holder(source, size, from)) {
        cuda_error(invalid_value, "a copy of %zu bytes runs over the end of an allocation", size);
        return false;
    }
    CopyKind actual = from == on_host ? (to == on_host ? host_to_host : host_to_device)
                                      : (to == on_host ? device_to_host : device_to_device);
    if (size && kind != by_address && kind != actual) {
        cuda_error(invalid_value, "a copy of kind %d between addresses of kind %d", kind, actual);
        return false;
    }
    found = {target, source, size, actual};
    return true;
}

void count(const Copy& copy) {
    if (copy.kind == host_to_device) emulated_counters.host_to_device++;
    if (copy.kind == device_to_host) emulated_counters.device_to_host++;
    if (copy.kind == device_to_device) emulated_counters.device_to_device++;
}

void move(const Copy& copy) {
    memmove(reinterpret_cast<void*>(copy.target), reinterpret_cast<void*>(copy.source), copy.size);
}

void run(const Copy& copy) {
    count(copy);
    move(copy);
}

// The same in a graph: the host's memory may be gone by now, which must not end the process.
bool run_again(const Copy& copy) {
    void *target = reinterpret_cast<void*>(copy.target), *source = reinterpret_cast<void*>(copy.source);
    iovec from = {source, copy.size}, to = {target, copy.size};
    ssize_t done = copy.kind == device_to_host ? process_vm_writev(getpid(), &from, 1, &to, 1, 0)
                                               : process_vm_readv(getpid(), &to, 1, &from, 1, 0);
    if (done < 0 && errno != EFAULT) return memmove(target, source, copy.size), true;  // a kernel without these calls
    if (done != static_cast<ssize_t>(copy.size))
        return cuda_error(illegal_address, "a copy in a graph: the host's memory is gone"), false;
    return true;
}

bool is_pageable(intptr_t address) { return !allocation_at(reinterpret_cast<void*>(address)); }

// On an asynchronous device. CUDA takes a copy of pageable memory before it returns, and returns from a copy to
// pageable memory when it is there.
bool copied_later(const Copy& copy, intptr_t stream) {
    if (copy.kind == host_to_host || (copy.kind == device_to_host && is_pageable(copy.target)))
        return finish(stream) && (run(copy), true);
    count(copy);
    std::vector<const void*> memory = {reinterpret_cast<void*>(copy.target), reinterpret_cast<void*>(copy.source)};
    if (copy.kind == device_to_device || !is_pageable(copy.source)) {
        record(stream, {NodeType::memcpy, "memcpy", memory, [copy] { return move(copy), true; }});
    } else {
        const char* source = reinterpret_cast<char*>(copy.source);
        auto taken = std::make_shared<std::vector<char>>(source, source + copy.size);
        record(stream, {NodeType::memcpy, "memcpy", {memory[0]}, [copy, taken] {
            return memcpy(reinterpret_cast<void*>(copy.target), taken->data(), copy.size), true;
        }});
    }
    return true;
}

// A copy on a stream, now or when the graph is launched.
PyObject* copied(intptr_t target, intptr_t source, size_t size, int kind, intptr_t stream) {
    Copy copy;
    if (!usable(stream) || !check(target, source, size, kind, copy)) return nullptr;
    if (!held_back(stream)) return run(copy), none();
    if (!captures(stream)) return copied_later(copy, stream) ? none() : nullptr;
    static const char* const names[] = {"memcpy_host_to_host", "memcpy_host_to_device", "memcpy_device_to_host",
                                        "memcpy_device_to_device"};
    std::vector<const void*> memory = {reinterpret_cast<void*>(target), reinterpret_cast<void*>(source)};
    record(stream, {NodeType::memcpy, names[copy.kind], memory, [copy] { return run_again(copy); }});
    return none();
}

// A copy that waits: on the legacy default stream.
PyObject* copied(intptr_t target, intptr_t source, size_t size, int kind) {
    if (int status = permitted_beside_captures()) return capture_error(status);
    PyObject* result = copied(target, source, size, kind, 0);
    Py_XDECREF(result);
    return result && finish(0) ? waited() : nullptr;
}

PyObject* filled(intptr_t target, int value, size_t size, intptr_t stream) {
    int device;
    if (!usable(stream)) return nullptr;
    if (!holder(target, size, device) || device == on_host) return cuda_error(invalid_value, "memset outside memory");
    auto run = [=] { return memset(reinterpret_cast<void*>(target), value, size), true; };
    if (held_back(stream))
        record(stream, {NodeType::memset, "memset", {reinterpret_cast<void*>(target)}, run});
    else
        run();
    return none();
}

// A function of the host on a stream; its errors are only shown, as CUDA has nobody to give them to.
PyObject* called(intptr_t stream, PyObject* function, PyObject* arguments) {
    std::shared_ptr<PyObject> owned(function, [](PyObject* object) { Py_DECREF(object); });
    std::shared_ptr<PyObject> given(arguments, [](PyObject* object) { Py_XDECREF(object); });
    Py_INCREF(function);
    if (!given || !usable(stream)) return nullptr;
    auto run = [owned, given] {
        PyObject* result = PyObject_Call(owned.get(), given.get(), nullptr);
        if (!result) PyErr_WriteUnraisable(owned.get());
        Py_XDECREF(result);
        return true;
    };
    if (held_back(stream))
        record(stream, {NodeType::host, "host", {}, run});
    else
        run();
    return none();
}

}  // namespace

PyObject* cuda_error(Status status, const char* detail, ...) {
    va_list arguments;
    va_start(arguments, detail);
    PyObject* said = PyUnicode_FromFormatV(detail, arguments);
    va_end(arguments);
    PyObject* type = from_cupy("CUDARuntimeError");
    PyObject* error = type ? PyObject_CallFunction(type, "i", status) : nullptr;
    if (error && said) {
        PyObject* message = PyUnicode_FromFormat("%S (emulated: %U)", error, said);
        PyObject* arguments_of_error = Py_BuildValue("(N)", message);
        PyObject_SetAttrString(error, "args", arguments_of_error);
        Py_DECREF(arguments_of_error);
        PyErr_SetObject(type, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(type);
    Py_XDECREF(said);
    return nullptr;
}

extern "C" {

// ---- Devices

int runtime_getDevice(int) { return current_device; }
int runtime_getDeviceCount(int) { return emulated_device_count; }
int runtime_driverGetVersion(int) { return 12090; }
int runtime_runtimeGetVersion(int) { return 12090; }
PyObject* runtime__ensure_context() { return none(); }
PyObject* runtime_deviceSynchronize(int) {
    int status = may_wait_for_device();
    if (status) return capture_error(status);
    return run_all() ? waited() : nullptr;
}

PyObject* runtime_setDevice(int device, int) {
    if (device < 0 || device >= emulated_device_count)
        return cuda_error(invalid_device, "device %d of %d", device, emulated_device_count);
    current_device = device;
    return none();
}

// By the numbers of `enum cudaDeviceAttr`, with the values of an A100.
int runtime_deviceGetAttribute(int attribute, int, int) {
    switch (attribute) {
        case 1: return 1024;             // threads in a block
        case 2: case 3: return 1024;     // along x, y
        case 4: return 64;               // along z
        case 5: return 2147483647;       // blocks along x
        case 6: case 7: return 65535;    // along y, z
        case 8: return 49152;            // bytes of shared memory in a block
        case 10: return 32;              // threads in a warp
        case 12: return 65536;           // registers in a block
        case 16: return 108;             // multiprocessors
        case 39: return 2048;            // threads in a multiprocessor
        case 75: return 8;               // compute capability, major
        case 76: return 0;               // and minor
        case 115: return 0;              // memory pools: CuPy then uses its own
        default: return 1;
    }
}

PyObject* runtime_getDeviceProperties(int device, int) {
    if (device < 0 || device >= emulated_device_count) return cuda_error(invalid_device, "device %d", device);
    return Py_BuildValue("{s:y, s:n, s:n, s:i, s:i, s:i, s:i, s:i}", "name", "emulated on a CPU", "totalGlobalMem",
                         static_cast<Py_ssize_t>(emulated_memory_size), "sharedMemPerBlock", Py_ssize_t(49152), "major",
                         8, "minor", 0, "warpSize", 32, "maxThreadsPerBlock", 1024, "multiProcessorCount", 108);
}

int runtime_deviceCanAccessPeer(int, int, int) { return emulated_peer_access; }
PyObject* runtime__deviceEnsurePeerAccess(int, int) { return none(); }
PyObject* runtime_deviceEnablePeerAccess(int, int) { return none(); }

// ---- Memory

PyObject* runtime_memGetInfo(int) {
    size_t used = bytes_used(current_device), size = emulated_memory_size;
    return Py_BuildValue("(nn)", static_cast<Py_ssize_t>(used < size ? size - used : 0), static_cast<Py_ssize_t>(size));
}

intptr_t runtime_malloc(size_t size, int) {
    if (int status = permitted_beside_captures()) return capture_error(status), 0;
    emulated_counters.mallocs++;
    void* begin = allocate(size, current_device);
    if (!begin)
        cuda_error(memory_allocation, "%zu bytes, beside %zu in use, of %zu on device %d", size,
                   bytes_used(current_device), emulated_memory_size, current_device);
    return reinterpret_cast<intptr_t>(begin);
}
intptr_t runtime_mallocAsync(size_t size, intptr_t, int) { return runtime_malloc(size, 0); }

PyObject* runtime_free(intptr_t begin, int) {
    if (int status = permitted_beside_captures()) return capture_error(status);
    if (!run_all()) return nullptr;  // cudaFree waits
    if (begin && !release(reinterpret_cast<void*>(begin)))
        return cuda_error(invalid_value, "freed twice, or never allocated");
    return none();
}
PyObject* runtime_freeAsync(intptr_t begin, intptr_t, int) { return runtime_free(begin, 0); }

intptr_t runtime_hostAlloc(size_t size, unsigned, int) {
    if (int status = permitted_beside_captures()) return capture_error(status), 0;
    void* begin = allocate(size, on_host);
    if (!begin) cuda_error(memory_allocation, "%zu bytes of pinned memory", size);
    return reinterpret_cast<intptr_t>(begin);
}
PyObject* runtime_freeHost(intptr_t begin, int) { return runtime_free(begin, 0); }

PyObject* runtime_memcpy(intptr_t target, intptr_t source, size_t size, int kind, int) {
    return copied(target, source, size, kind);
}
PyObject* runtime_memcpyAsync(intptr_t target, intptr_t source, size_t size, int kind, intptr_t stream, int) {
    return copied(target, source, size, kind, stream);
}
PyObject* runtime_memcpyPeer(intptr_t target, int, intptr_t source, int, size_t size, int) {
    return copied(target, source, size, device_to_device);
}
PyObject* runtime_memcpyPeerAsync(intptr_t target, int, intptr_t source, int, size_t size, intptr_t stream, int) {
    return copied(target, source, size, device_to_device, stream);
}
PyObject* runtime_memset(intptr_t target, int value, size_t size, int) { return filled(target, value, size, 0); }
PyObject* runtime_memsetAsync(intptr_t target, int value, size_t size, intptr_t stream, int) {
    return filled(target, value, size, stream);
}

int runtime_pointerGetMemoryType(intptr_t address, int) {
    const Allocation* found = allocation_at(reinterpret_cast<void*>(address));
    return !found ? 0 : found->device == on_host ? 1 : 2;  // unregistered, host, device
}

PyObject* runtime_pointerGetAttributes(intptr_t address, int) {
    const Allocation* found = allocation_at(reinterpret_cast<void*>(address));
    PyObject* type = from_cupy("PointerAttributes");
    if (!type) return nullptr;
    PyObject* made = PyObject_CallFunction(type, "inni", found ? found->device : -1, static_cast<Py_ssize_t>(address),
                                           static_cast<Py_ssize_t>(found && found->device == on_host ? address : 0),
                                           runtime_pointerGetMemoryType(address, 0));
    Py_DECREF(type);
    return made;
}

// ---- Functions of the host

PyObject* runtime_launchHostFunc(intptr_t stream, PyObject* function, intptr_t argument, int) {
    return called(stream, function, Py_BuildValue("(n)", argument));
}
PyObject* runtime__launchHostFuncUnmanaged(intptr_t stream, PyObject* function_and_argument, int) {
    PyObject *function, *argument;
    if (!PyArg_ParseTuple(function_and_argument, "OO", &function, &argument)) return nullptr;
    return called(stream, function, Py_BuildValue("(O)", argument));
}
PyObject* runtime_streamAddCallback(intptr_t stream, PyObject* function, intptr_t argument, int, void*) {
    if (captures(stream)) return capture_error(may_wait(stream));  // CUDA refuses these, not those above
    return called(stream, function, Py_BuildValue("(nin)", stream, 0, argument));
}

}  // extern "C"
