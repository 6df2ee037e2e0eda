// Work on a stream: it runs at once, or a capture records it, or is refused.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

enum class NodeType { kernel = 0, memcpy = 1, memset = 2, host = 3 };  // as in `enum CUgraphNodeType`

typedef std::map<intptr_t, size_t> Clock;  // the first so many nodes of each stream

struct Node {  // of a graph: one piece of work, with the values of its parameters
    NodeType type;
    std::string name;
    std::vector<const void*> memory;  // what it reads and writes, where that is not the host's pageable memory
    std::function<bool()> run;        // false where it fails, with or without an error set
    int device = 0;
    std::vector<long> serials = {};  // of the allocations of `memory` when it was recorded
    intptr_t stream = 0;
    Clock before = {};  // what must run before this one
};
typedef std::vector<Node> Nodes;

// All that works on a stream asks `permitted`, and then is recorded if the stream captures. Statuses are numbers of
// `enum cudaError`, 0 for success: cuBLAS asks as well, and has errors of its own. What is refused invalidates the
// capture that it would have disturbed.
int permitted(intptr_t stream);
bool captures(intptr_t stream);
bool held_back(intptr_t stream);  // it captures, or devices are asynchronous: see queues.h
void record(intptr_t stream, Node node);

// What cudaMalloc, cudaMemcpy and their kin ask: a capture that is not in relaxed mode refuses them.
int permitted_beside_captures();
// What waits for a device, a stream: never while it captures.
int may_wait_for_device();
int may_wait(intptr_t stream);

// Waits for a stream, where its work is held back; false with an error set.
bool finish(intptr_t stream);

// Runs what was recorded; false with an error set.
bool replay(const Node& node);
