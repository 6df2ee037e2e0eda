// A block of a GPU is up to 1024 threads that run at once and wait for each other at barriers. Here they take turns:
// where they wait, each has a fiber, that is a stack of its own on which it can be left and taken up again.
//
// A fiber is made with makecontext, then left and resumed with _setjmp and _longjmp, which unlike swapcontext make
// no system call: a reduction over a small array changes fibers some ten thousand times. (QEMU does the same.)
#include "blocks.h"

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

namespace cupy_on_cpu {
Index threadIdx, blockIdx, blockDim, gridDim;
unsigned thread;
unsigned char exchange[1024][16];
char* dynamic_shared_memory;
}  // namespace cupy_on_cpu

using namespace cupy_on_cpu;

namespace {

constexpr unsigned warp_size = 32;
constexpr size_t stack_size = 128 * 1024;  // of address space; a page is taken when it is touched

enum class State { ready, waits_for_warp, waits_for_block, done };

struct Fiber {
    State state;
    unsigned mask;  // the lanes that it waits for
    bool started;
    jmp_buf place;
    char* stack;
};

Fiber fibers[1024];
jmp_buf scheduler;
const Kernel* kernel;
void** arguments;

void leave(State state) {
    fibers[thread].state = state;
    if (!_setjmp(fibers[thread].place)) _longjmp(scheduler, 1);
}

void fiber_main() {  // never returns: a fiber serves its place in every block of every launch
    for (;;) {
        kernel->run_thread(arguments);
        leave(State::done);
    }
}

void resume(unsigned number) {
    thread = number;
    threadIdx = {number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y};
    if (_setjmp(scheduler)) return;  // the fiber left
    Fiber& fiber = fibers[number];
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    if (!fiber.stack) fiber.stack = static_cast<char*>(malloc(stack_size));
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack;
    context.uc_stack.ss_size = stack_size;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
    setcontext(&context);
}

// Makes those threads of a warp ready whose whole mask has arrived at the warp's barrier or ended.
bool release_warp(unsigned first, unsigned end) {
    unsigned waiting = 0, missing = 0;
    for (unsigned i = first; i < end; i++) {
        if (fibers[i].state == State::waits_for_warp) waiting |= 1u << (i - first);
        if (fibers[i].state == State::waits_for_block) missing |= 1u << (i - first);
    }
    bool released = false;
    for (unsigned lane = 0; lane < end - first; lane++)
        if (waiting >> lane & 1 && !(fibers[first + lane].mask & missing)) {
            fibers[first + lane].state = State::ready;
            released = true;
        }
    return released;
}

// False where the threads wait for each other forever.
bool run_block_on_fibers(unsigned threads) {
    for (unsigned i = 0; i < threads; i++) fibers[i].state = State::ready;
    for (;;) {
        for (unsigned first = 0; first < threads; first += warp_size) {
            unsigned end = first + warp_size < threads ? first + warp_size : threads;
            do {
                for (unsigned i = first; i < end; i++)
                    if (fibers[i].state == State::ready) resume(i);
            } while (release_warp(first, end));
        }
        unsigned alive = 0, arrived = 0;
        for (unsigned i = 0; i < threads; i++) {
            alive += fibers[i].state != State::done;
            arrived += fibers[i].state == State::waits_for_block;
        }
        if (!alive) return true;
        if (arrived < alive) {
            for (Fiber& fiber : fibers) fiber.started = false;  // else they would go on where they are stuck
            return false;
        }
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].state == State::waits_for_block) fibers[i].state = State::ready;
    }
}

void run_block() {
    thread = 0;
    for (unsigned z = 0; z < blockDim.z; z++)
        for (unsigned y = 0; y < blockDim.y; y++)
            for (unsigned x = 0; x < blockDim.x; x++) {
                threadIdx = {x, y, z};
                kernel->run_thread(arguments);
                thread++;
            }
}

void require_fibers() {
    if (kernel->waits) return;
    fputs("cupy_on_cpu: a kernel waits for other threads though its text names no barrier; see toolchain.py\n", stderr);
    abort();
}

}  // namespace

void cupy_on_cpu::wait_for_block() {
    require_fibers();
    leave(State::waits_for_block);
}

void cupy_on_cpu::wait_for_warp(unsigned mask) {
    require_fibers();
    fibers[thread].mask = mask;
    leave(State::waits_for_warp);
}

const char* run_blocks(const Kernel& launched, void** values, Index grid, Index block, unsigned shared_bytes) {
    constexpr uintptr_t alignment = 16;
    static std::vector<char> shared;
    shared.assign(shared_bytes + alignment, '\xff');  // NaN, as in device memory, until it is written
    uintptr_t begin = reinterpret_cast<uintptr_t>(shared.data());
    dynamic_shared_memory = reinterpret_cast<char*>((begin + alignment - 1) / alignment * alignment);
    kernel = &launched;
    arguments = values;
    gridDim = grid;
    blockDim = block;
    unsigned threads = block.x * block.y * block.z;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                if (!kernel->waits)
                    run_block();
                else if (!run_block_on_fibers(threads))
                    return "its threads wait at different barriers, forever";
            }
    return nullptr;
}
