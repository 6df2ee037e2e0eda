// The CUDA driver as cupy_backends.cuda.api.driver exports it: modules and launches.
//
// A module is a shared library that toolchain.py compiled; what CuPy loads as a cubin is that library's path.
#include "blocks.h"
#include "captures.h"
#include "devices.h"
#include "errors.h"

#include <cstddef>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <string>
#include <vector>

using cupy_on_cpu::Index;
using cupy_on_cpu::Kernel;

namespace {

struct Function {
    std::string name;
    const Kernel* kernel;
};
std::map<std::string, long> launches;  // by kernel name

struct Launch {
    const Function* function;
    Index grid, block;
    unsigned shared_bytes;
};

// True, or false with an error set.
bool run(const Launch& launch, void** arguments) {
    launches[launch.function->name]++;
    const char* failure = run_blocks(*launch.function->kernel, arguments, launch.grid, launch.block, launch.shared_bytes);
    if (failure) cuda_error(launch_failure, "%s: %s", launch.function->name.c_str(), failure);
    return !failure;
}

struct Arguments {  // of a launch in a graph: copies of their values
    std::vector<std::vector<std::max_align_t>> values;
    Arguments(const Kernel& kernel, void** given) {
        for (int i = 0; i < kernel.parameters; i++) {
            values.emplace_back((kernel.sizes[i] + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
            memcpy(values.back().data(), given[i], kernel.sizes[i]);
        }
    }
    std::vector<void*> pointers() {
        std::vector<void*> made;
        for (auto& value : values) made.push_back(value.data());
        return made;
    }
};

bool fits(Index grid, Index block, unsigned shared_bytes) {
    auto empty = [](Index size) { return !size.x || !size.y || !size.z; };
    return !empty(grid) && !empty(block) && grid.x <= 2147483647 && grid.y <= 65535 && grid.z <= 65535 &&
           block.x <= 1024 && block.y <= 1024 && block.z <= 64 && block.x * block.y * block.z <= 1024 &&
           shared_bytes <= 49152;
}

// The device memory among the arguments.
std::vector<const void*> memory(const Function& function, void** arguments) {
    std::vector<const void*> pointers(function.kernel->parameters);
    pointers.resize(function.kernel->data_pointers(arguments, pointers.data()));
    return pointers;
}

// It must be where a kernel on the current device can reach it; false with an error set.
bool reachable(const Function& function, const std::vector<const void*>& pointers) {
    for (const void* pointer : pointers) {
        Access found = access(pointer);
        if (found == Access::granted) continue;
        if (found == Access::unknown)
            cuda_error(illegal_address, "%s was given an address that is no device's", function.name.c_str());
        else
            cuda_error(illegal_address, "%s runs on device %d and was given memory of device %d",
                       function.name.c_str(), current_device, allocation_at(pointer)->device);
        return false;
    }
    return true;
}

}  // namespace

extern "C" {

PyObject* emulated_kernels() {  // name -> launches
    PyObject* found = PyDict_New();
    for (const auto& [name, count] : launches) {
        PyObject* value = PyLong_FromLong(count);
        PyDict_SetItemString(found, name.c_str(), value);
        Py_DECREF(value);
    }
    return found;
}

PyObject* emulated_forget_kernels() {
    launches.clear();
    Py_RETURN_NONE;
}

intptr_t driver_ctxGetCurrent(int) { return current_device + 1; }
int driver_ctxGetDevice(int) { return current_device; }
intptr_t driver_streamGetCtx(intptr_t, int) { return current_device + 1; }

intptr_t driver_moduleLoadData(PyObject* path, int) {
    const char* name = PyBytes_AsString(path);
    if (!name) return 0;
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) cuda_error(invalid_image, "%s", dlerror());
    return reinterpret_cast<intptr_t>(library);
}
PyObject* driver_moduleUnload(intptr_t, int) { Py_RETURN_NONE; }  // it may have been loaded twice

intptr_t driver_moduleGetFunction(intptr_t module, PyObject* name, int) {
    const char* wanted = PyUnicode_AsUTF8(name);
    if (!wanted) return 0;
    std::string symbol = std::string("cupy_on_cpu_kernel_") + wanted;
    void* kernel = dlsym(reinterpret_cast<void*>(module), symbol.c_str());
    if (!kernel) return cuda_error(not_found, "no kernel %s", wanted), 0;
    // CuPy has no call that ends a function's life.
    return reinterpret_cast<intptr_t>(new Function{wanted, static_cast<const Kernel*>(kernel)});
}

int driver_funcGetAttribute(int attribute, intptr_t, int) { return attribute == 0 ? 1024 : 0; }  // 0: block size
PyObject* driver_funcSetAttribute(intptr_t, int, int, int) { Py_RETURN_NONE; }
PyObject* driver_occupancyMaxPotentialBlockSize(intptr_t, size_t, int, int) { return Py_BuildValue("(ii)", 1, 128); }
int driver_occupancyMaxActiveBlocksPerMultiprocessor(intptr_t, int, size_t, int) { return 1; }

PyObject* driver_launchKernel(intptr_t address, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                              unsigned block_y, unsigned block_z, unsigned shared_bytes, intptr_t stream,
                              intptr_t arguments, intptr_t, int) {
    const Function& function = *reinterpret_cast<Function*>(address);
    void** values = reinterpret_cast<void**>(arguments);
    Index grid = {grid_x, grid_y, grid_z}, block = {block_x, block_y, block_z};
    if (!fits(grid, block, shared_bytes))
        return cuda_error(invalid_value, "%s: %u x %u x %u blocks of %u x %u x %u threads, %u bytes shared",
                          function.name.c_str(), grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes);
    std::vector<const void*> pointers = memory(function, values);
    if (!usable(stream) || !reachable(function, pointers)) return nullptr;
    Launch launch = {&function, grid, block, shared_bytes};
    if (!captures(stream)) emulated_counters.launches++;
    if (held_back(stream)) {
        auto run_again = [launch, kept = Arguments(*function.kernel, values)]() mutable {
            return run(launch, kept.pointers().data());
        };
        record(stream, {NodeType::kernel, function.name, pointers, run_again});
    } else if (!run(launch, values)) {
        return nullptr;
    }
    Py_RETURN_NONE;
}

}  // extern "C"
