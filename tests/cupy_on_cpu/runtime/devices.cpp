#include "devices.h"

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>

Counters emulated_counters;
int emulated_device_count = 1;
int emulated_peer_access = 0;
size_t emulated_memory_size = size_t(16) << 30;
int emulated_replay_order = 0;
int emulated_cublas_handles = 0;
thread_local int current_device = 0;

namespace {

constexpr size_t alignment = 512;  // CuPy's memory pool relies on it

std::map<uintptr_t, Allocation> allocations;  // by first address
std::map<int, size_t> used;                   // bytes, by device

}  // namespace

void* allocate(size_t size, int device) {
    bool full = used[device] > emulated_memory_size || size > emulated_memory_size - used[device];
    if (full && device != on_host) return nullptr;
    void* begin = nullptr;
    if (posix_memalign(&begin, alignment, size ? size : 1)) return nullptr;
    memset(begin, 0xff, size);  // NaN in every floating type: what is read before it is written shows
    used[device] += size;
    uintptr_t address = reinterpret_cast<uintptr_t>(begin);
    static long made = 0;
    allocations[address] = {address, size, device, ++made};
    return begin;
}

bool release(const void* begin) {
    auto found = allocations.find(reinterpret_cast<uintptr_t>(begin));
    if (found == allocations.end()) return false;
    used[found->second.device] -= found->second.size;
    allocations.erase(found);
    free(const_cast<void*>(begin));
    return true;
}

const Allocation* allocation_at(const void* address) {
    uintptr_t wanted = reinterpret_cast<uintptr_t>(address);
    auto next = allocations.upper_bound(wanted);
    if (next == allocations.begin()) return nullptr;
    const Allocation& found = std::prev(next)->second;
    return wanted - found.begin < found.size ? &found : nullptr;
}

size_t bytes_used(int device) { return used[device]; }

extern "C" long emulated_bytes() {
    long sum = 0;
    for (auto& [device, size] : used) sum += device == on_host ? 0 : size;
    return sum;
}

Access access(const void* address) {
    const Allocation* found = allocation_at(address);
    if (!found) return Access::unknown;
    if (found->device == current_device || found->device == on_host) return Access::granted;
    emulated_counters.foreign++;
    return emulated_peer_access ? Access::granted : Access::refused;
}
