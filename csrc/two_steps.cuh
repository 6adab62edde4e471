// Work in two steps in one launch: a group's second step needs what all of its first step found.
//
// Blocks take tasks by ticket, so every task has an order, and the blocks that hold earlier ones are running. A task of
// a second step comes after all of its group's first step and may wait for them: they wait for nothing. Groups go in
// lots, and the second step of a lot comes after the first step of the next, when what it waits for has long happened
// and what it reads again is still in L2. Memory is read and written all the time.
#pragma once

#include "launch.cuh"

namespace ldf {

constexpr int kThreads = 256;

struct Plan {
  unsigned groups;
  unsigned first, second;  // tasks of a group in each step, at least 1
  unsigned lots, lot;      // groups of a lot; the last one may have fewer
};

struct Task {
  enum Step : unsigned { first, second, over } step;
  unsigned group, tile;
};

// Task number `t`: A0, A1 B0, A2 B1, ..., An Bn-1 Bn, with A a lot's first step and B its second.
__device__ inline Task task_of(const Plan& p, unsigned t) {
  const unsigned a = p.lot * p.first, b = p.lot * p.second, rest = p.groups - (p.lots - 1) * p.lot;
  unsigned lot = 0;
  if (p.lots > 1 && t >= a) {
    const unsigned round = (t - a) / (a + b);
    lot = round + 1 < p.lots - 1 ? round + 1 : p.lots - 1;
    t -= a + (lot - 1) * (a + b);
  }
  const unsigned here = (lot + 1 < p.lots ? p.lot : rest) * p.first;
  if (t < here) return {Task::first, lot * p.lot + t / p.first, t % p.first};
  t -= here;
  if (lot > 0 && t < b) return {Task::second, (lot - 1) * p.lot + t / p.second, t % p.second};
  t -= lot > 0 ? b : 0;
  if (t >= rest * p.second) return {Task::over, 0, 0};
  return {Task::second, lot * p.lot + t / p.second, t % p.second};
}

// How far a group is: the tasks of its first step that are done, and one more when finish() is. Starts as zeros, as
// does the ticket before the first of them.
inline std::int64_t progress_bytes(std::int64_t groups) { return (1 + groups + 3) / 4 * 16; }

// `job` has first(group, tile), finish(group), which one block runs after all of first(), and second(group, tile,
// wait), which calls wait() before it reads what finish() wrote; what it reads of others' it reads past L1. All threads
// of a block run them together.
template <class Job>
__global__ void __launch_bounds__(kThreads, Job::kBlocks) two_steps(const Job job, const Plan plan,
                                                                    unsigned* progress) {
  __shared__ Task taken;
  __shared__ bool last;
  unsigned ticket = threadIdx.x == 0 ? atomicAdd(progress, 1u) : 0u;
  for (;;) {
    if (threadIdx.x == 0) taken = task_of(plan, ticket);
    __syncthreads();
    const Task task = taken;
    if (task.step == Task::over) return;
    if (threadIdx.x == 0) ticket = atomicAdd(progress, 1u);  // comes while the task is worked on
    unsigned* done = progress + 1 + task.group;
    if (task.step == Task::first) {
      job.first(task.group, task.tile);
      __syncthreads();
      if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(done, 1u) + 1 == plan.first;
        __threadfence();
      }
      __syncthreads();
      if (last) {
        job.finish(task.group);
        __syncthreads();
        if (threadIdx.x == 0) {
          __threadfence();
          atomicAdd(done, 1u);
        }
      }
    } else {
      job.second(task.group, plan.second - 1 - task.tile, [&] {  // backwards: the last read is most likely in L2
        if (threadIdx.x == 0) {
          while (*static_cast<volatile unsigned*>(done) <= plan.first) __nanosleep(100);
          __threadfence();
        }
        __syncthreads();
      });
    }
  }
}

// Blocks that find no room on the GPU at first find the rest of the work later, or none.
template <class Job>
Status launch_two_steps(const char* name, const Job& job, const Plan& plan, void* progress, Stream stream) {
  const std::int64_t tasks = std::int64_t{plan.groups} * (std::int64_t{plan.first} + plan.second);
  if (tasks > 0x7fffffff) return {cudaErrorInvalidValue, name, "launch_two_steps (tasks)"};
  const auto bytes = static_cast<std::size_t>(progress_bytes(plan.groups));
  const Status cleared = status_of(cudaMemsetAsync(progress, 0, bytes, stream), name, "cudaMemsetAsync");
  if (!cleared.ok()) return cleared;
  int device = 0, processors = 0;
  cudaError_t known = cudaGetDevice(&device);
  if (known == cudaSuccess) known = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (known != cudaSuccess) return status_of(known, name, "cudaDeviceGetAttribute");
  const std::int64_t blocks = std::min<std::int64_t>(tasks, std::int64_t{processors} * Job::kBlocks);
  return launch(name, two_steps<Job>, static_cast<unsigned>(blocks), kThreads, 0, stream, job, plan,
                static_cast<unsigned*>(progress));
}

}  // namespace ldf
