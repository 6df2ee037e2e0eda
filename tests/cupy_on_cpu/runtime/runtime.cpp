// The CUDA runtime as cupy_backends.cuda.api.runtime exports it to CuPy's other modules.
//
// hooks.py puts each function runtime_X here in the place of X there, so names and parameters are CuPy's; the last
// parameter, `int`, is Cython's. Work is done when the call returns: streams and events are names.
#include "devices.h"
#include "errors.h"

#include <chrono>
#include <cstdarg>
#include <cstring>
#include <map>

namespace {

struct Handle {  // a stream or an event
    int device;
    std::chrono::steady_clock::time_point recorded;
};
std::map<intptr_t, Handle> handles;

intptr_t new_handle() {
    static intptr_t last = 1000;  // 0, 1 and 2 are the default streams
    handles[++last] = {current_device, {}};
    return last;
}

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

// Copies, in whichever direction, and counts; false with an error set.
bool copied(intptr_t target, intptr_t source, size_t size, int kind) {
    int to, from;
    if (!holder(target, size, to) || !holder(source, size, from)) {
        cuda_error(invalid_value, "a copy of %zu bytes runs over the end of an allocation", size);
        return false;
    }
    int actual = from == on_host ? (to == on_host ? host_to_host : host_to_device)
                                 : (to == on_host ? device_to_host : device_to_device);
    if (size && kind != by_address && kind != actual) {
        cuda_error(invalid_value, "a copy of kind %d between addresses of kind %d", kind, actual);
        return false;
    }
    if (actual == host_to_device) emulated_counters.host_to_device++;
    if (actual == device_to_host) emulated_counters.device_to_host++;
    if (actual == device_to_device) emulated_counters.device_to_device++;
    memmove(reinterpret_cast<void*>(target), reinterpret_cast<void*>(source), size);
    return true;
}

PyObject* filled(intptr_t target, int value, size_t size) {
    int device;
    if (!holder(target, size, device) || device == on_host) return cuda_error(invalid_value, "memset outside memory");
    memset(reinterpret_cast<void*>(target), value, size);
    return none();
}

}  // namespace

bool usable(intptr_t handle) {
    if (handle <= 2) return true;  // the default streams are of every device
    auto found = handles.find(handle);
    if (found == handles.end())
        cuda_error(invalid_handle, "no such stream or event");
    else if (found->second.device != current_device)
        cuda_error(invalid_handle, "a stream or event of device %d, used on device %d", found->second.device,
                   current_device);
    else
        return true;
    return false;
}

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
PyObject* runtime_deviceSynchronize(int) { return waited(); }

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
    emulated_counters.mallocs++;
    void* begin = allocate(size, current_device);
    if (!begin)
        cuda_error(memory_allocation, "%zu bytes, beside %zu in use, of %zu on device %d", size,
                   bytes_used(current_device), emulated_memory_size, current_device);
    return reinterpret_cast<intptr_t>(begin);
}
intptr_t runtime_mallocAsync(size_t size, intptr_t, int) { return runtime_malloc(size, 0); }

PyObject* runtime_free(intptr_t begin, int) {
    if (begin && !release(reinterpret_cast<void*>(begin)))
        return cuda_error(invalid_value, "freed twice, or never allocated");
    return none();
}
PyObject* runtime_freeAsync(intptr_t begin, intptr_t, int) { return runtime_free(begin, 0); }

intptr_t runtime_hostAlloc(size_t size, unsigned, int) {
    void* begin = allocate(size, on_host);
    if (!begin) cuda_error(memory_allocation, "%zu bytes of pinned memory", size);
    return reinterpret_cast<intptr_t>(begin);
}
PyObject* runtime_freeHost(intptr_t begin, int) { return runtime_free(begin, 0); }

PyObject* runtime_memcpy(intptr_t target, intptr_t source, size_t size, int kind, int) {
    return copied(target, source, size, kind) ? waited() : nullptr;
}
PyObject* runtime_memcpyAsync(intptr_t target, intptr_t source, size_t size, int kind, intptr_t stream, int) {
    return usable(stream) && copied(target, source, size, kind) ? none() : nullptr;
}
PyObject* runtime_memcpyPeer(intptr_t target, int, intptr_t source, int, size_t size, int) {
    return copied(target, source, size, device_to_device) ? waited() : nullptr;
}
PyObject* runtime_memcpyPeerAsync(intptr_t target, int, intptr_t source, int, size_t size, intptr_t stream, int) {
    return usable(stream) && copied(target, source, size, device_to_device) ? none() : nullptr;
}
PyObject* runtime_memset(intptr_t target, int value, size_t size, int) { return filled(target, value, size); }
PyObject* runtime_memsetAsync(intptr_t target, int value, size_t size, intptr_t stream, int) {
    return usable(stream) ? filled(target, value, size) : nullptr;
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

// ---- Streams

intptr_t runtime_streamCreate(int) { return new_handle(); }
intptr_t runtime_streamCreateWithFlags(unsigned, int) { return new_handle(); }
intptr_t runtime_streamCreateWithPriority(unsigned, int, int) { return new_handle(); }
PyObject* runtime_streamDestroy(intptr_t stream, int) { return handles.erase(stream), none(); }
PyObject* runtime_streamSynchronize(intptr_t, int) { return waited(); }
PyObject* runtime_streamQuery(intptr_t, int) { return PyLong_FromLong(0); }  // all done
PyObject* runtime_streamWaitEvent(intptr_t, intptr_t, int, void*) { return none(); }
int runtime_streamIsCapturing(intptr_t, int) { return 0; }

// ---- Events

intptr_t runtime_eventCreate(int) { return new_handle(); }
intptr_t runtime_eventCreateWithFlags(unsigned, int) { return new_handle(); }
PyObject* runtime_eventDestroy(intptr_t event, int) { return handles.erase(event), none(); }
PyObject* runtime_eventSynchronize(intptr_t, int) { return waited(); }
PyObject* runtime_eventQuery(intptr_t, int) { return PyLong_FromLong(0); }  // passed

PyObject* runtime_eventRecord(intptr_t event, intptr_t stream, int) {
    if (!usable(event) || !usable(stream)) return nullptr;
    handles[event].recorded = std::chrono::steady_clock::now();
    return none();
}

float runtime_eventElapsedTime(intptr_t start, intptr_t end, int) {  // of the emulation, in milliseconds
    return std::chrono::duration<float, std::milli>(handles[end].recorded - handles[start].recorded).count();
}

}  // extern "C"
