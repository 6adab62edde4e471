// Runs the kernels that cuda_runtime.h (beside this file) lets g++ compile: fibres, barriers, checks, and as much of
// the CUDA runtime as csrc calls. Test-only.
//
// The .cu files are compiled with -fsanitize=thread and -fsanitize=undefined, but the functions those instrumentations
// call are the ones below: every access to shared memory is compared with the last ones to the same bytes, and undefined
// behaviour (a float4 at an odd address, an index past an array) ends the launch.
#include "cuda_runtime.h"

#include <link.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace host_cuda {
namespace {

constexpr unsigned kMostThreads = 1024;
constexpr std::size_t kStackBytes = 256 * 1024, kPage = 4096;
constexpr int kStaticAssumed = 1024;
constexpr std::size_t kArenaBytes = 256 * 1024;  // dynamic shared memory and what lies behind it
constexpr unsigned char kPoison = 0xff;

struct Fibre {
  enum State { ready, waiting, done } state = done;
  bool started = false;  // has a stack with frames on it
  jmp_buf at;
  char* stack = nullptr;
  uint3 index{};
  Wait wait{};
  unsigned mask = 0;
  std::uint64_t give = 0;
  const char* file = "";
  int line = 0;
};
struct Warp {
  unsigned met[32] = {};         // for every lane, the lanes of its last meeting
  std::uint64_t given[32] = {};  // and what it gave there
  std::uint64_t epoch = 0;       // when the last __syncwarp was
};
constexpr int kSeveral = -1;
struct Record {  // the last access to a byte of shared memory
  std::uint64_t when = 0;
  int thread = kSeveral, warp = kSeveral;
};
struct Shadow {
  Record write, read;
  bool write_atomic = false;
};

std::mutex launching;
std::vector<Fibre> fibres(kMostThreads);
Fibre* current = nullptr;
Warp warps[kMostThreads / 32];
unsigned threads = 0;
std::uint64_t clock_now = 0;    // grows with every block, barrier and __syncwarp
std::uint64_t block_epoch = 0;  // when the last barrier of the block was
const char* barrier_file = "";
int barrier_line = 0;
int total = 0;
jmp_buf home;
const std::function<void()>* body = nullptr;
std::string fault, last_fault;
bool capturing = false;  // what streams say of themselves
std::string fail_next;  // what the next launch fails with, if not empty
using Recorded = std::vector<std::function<void()>>;
Recorded* recording = nullptr;  // of the stream that is being captured

int order_mode = 2;  // 0 forward, 1 reverse, 2 random
std::mt19937 generator{1};

alignas(1024) unsigned char arena[kArenaBytes];
std::size_t arena_used = 0;
unsigned char* statics = nullptr;  // static shared memory: this library's thread-local storage
std::size_t statics_bytes = 0;
thread_local volatile char anchor;  // makes the storage exist
std::vector<Shadow> shadow;

unsigned number(const Fibre& fibre) { return static_cast<unsigned>(&fibre - fibres.data()); }

void find_statics() {
  anchor = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void*) {
        bool ours = false;
        const auto here = reinterpret_cast<ElfW(Addr)>(&find_statics);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& part = info->dlpi_phdr[i];
          const auto start = info->dlpi_addr + part.p_vaddr;
          ours |= part.p_type == PT_LOAD && here >= start && here < start + part.p_memsz;
        }
        for (int i = 0; ours && i < info->dlpi_phnum; ++i)
          if (info->dlpi_phdr[i].p_type == PT_TLS) {
            statics = static_cast<unsigned char*>(info->dlpi_tls_data);
            statics_bytes = info->dlpi_phdr[i].p_memsz;
          }
        return static_cast<int>(ours);
      },
      nullptr);
  shadow.resize(statics_bytes + kArenaBytes);
}

// ---- fibres

// AddressSanitizer must be told of every change of stacks.
const void* home_stack;
std::size_t home_bytes;
#ifdef __SANITIZE_ADDRESS__
void leave(void** keep, const void* stack, std::size_t bytes) { __sanitizer_start_switch_fiber(keep, stack, bytes); }
void arrive(void* kept, const void** from, std::size_t* bytes) { __sanitizer_finish_switch_fiber(kept, from, bytes); }
#else
void leave(void**, const void*, std::size_t) {}
void arrive(void*, const void**, std::size_t*) {}
#endif

void yield() {
  void* kept = nullptr;
  leave(&kept, home_stack, home_bytes);
  if (!_setjmp(current->at)) _longjmp(home, 1);
  arrive(kept, &home_stack, &home_bytes);
}

void fibre_main() {
  arrive(nullptr, &home_stack, &home_bytes);
  for (;;) {
    (*body)();
    current->state = Fibre::done;
    yield();
  }
}

__attribute__((noinline)) void resume(Fibre& fibre) {
  current = &fibre;
  threadIdx = fibre.index;
  void* kept = nullptr;
  leave(&kept, fibre.stack, kStackBytes);
  if (!_setjmp(home)) {
    if (fibre.started) _longjmp(fibre.at, 1);
    fibre.started = true;
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fibre.stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, fibre_main, 0);
    setcontext(&context);
  }
  arrive(kept, nullptr, nullptr);
  current = nullptr;
}

void make_stacks() {
  const std::size_t each = kStackBytes + kPage;
  void* all = mmap(nullptr, each * kMostThreads, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) std::abort();
  for (unsigned i = 0; i < kMostThreads; ++i) {
    char* low = static_cast<char*>(all) + i * each;
    mprotect(low, kPage, PROT_NONE);  // a stack that overflows ends here
    fibres[i].stack = low + kPage;
  }
}

// ---- faults

std::string describe(unsigned thread) {
  const uint3 t = fibres[thread].index;
  return "thread (" + std::to_string(t.x) + "," + std::to_string(t.y) + "," + std::to_string(t.z) + ")";
}

std::string here() {
  return " of block (" + std::to_string(blockIdx.x) + "," + std::to_string(blockIdx.y) + "," +
         std::to_string(blockIdx.z) + ")";
}

// The first fault ends the launch: the thread that met it does not go on.
void fail(const std::string& what) {
  if (fault.empty()) fault = what;
  if (current) yield();
}

// Whether the access `before` came before what this thread does now: by itself, or across a barrier.
bool ordered(const Record& before, int thread, int warp) {
  return before.when < block_epoch || (before.warp == warp && before.when < warps[warp].epoch) ||
         before.thread == thread;
}

// Adds this thread's access to a record of accesses that need no order among themselves.
void join(Record& record, int thread, int warp) {
  const bool alone = ordered(record, thread, warp);
  record.thread = alone ? thread : kSeveral;
  record.warp = alone || record.warp == warp ? warp : kSeveral;
  record.when = clock_now;
}

void race(const Record& before, const char* did, int thread, const char* does) {
  const std::string other = before.thread == kSeveral ? "several threads" : describe(before.thread);
  fail("race on shared memory: " + describe(thread) + here() + " " + does + " what " + other + " " + did +
       ", no barrier between; the last one was at " + barrier_file + ":" + std::to_string(barrier_line));
}

// ---- one block

void poison_shared(std::size_t dynamic_bytes) {
  volatile unsigned char* bytes = statics;
  for (std::size_t i = 0; i < statics_bytes; ++i) bytes[i] = kPoison;
  arena_used = dynamic_bytes;
  std::memset(arena, kPoison, kArenaBytes);
}

// Lets those lanes of a warp go on that have all met: the same kind of meeting, the same mask.
bool release_warp(unsigned w) {
  Fibre* lanes = &fibres[w * 32];
  const unsigned count = std::min(32u, threads - w * 32);
  bool any = false;
  for (unsigned l = 0; l < count; ++l) {
    const Fibre& first = lanes[l];
    if (first.state != Fibre::waiting || first.wait == Wait::block) continue;
    unsigned group = 0;
    bool all = true;
    for (unsigned k = 0; k < count; ++k) {
      if (!(first.mask >> k & 1u) || lanes[k].state == Fibre::done) continue;
      all &= lanes[k].state == Fibre::waiting && lanes[k].wait == first.wait && lanes[k].mask == first.mask;
      group |= 1u << k;
    }
    if (!all) continue;
    if (first.wait == Wait::fence) warps[w].epoch = ++clock_now;
    for (unsigned k = 0; k < count; ++k) {
      if (!(group >> k & 1u)) continue;
      warps[w].given[k] = lanes[k].give;
      warps[w].met[k] = group;
      lanes[k].state = Fibre::ready;
    }
    any = true;
  }
  return any;
}

bool release_block() {
  const Fibre& first = fibres[0];
  for (unsigned i = 0; i < threads; ++i) {
    const Fibre& fibre = fibres[i];
    if (fibre.state != Fibre::waiting || fibre.wait != Wait::block || fibre.line != first.line ||
        std::strcmp(fibre.file, first.file) != 0)
      return false;
  }
  total = 0;
  for (unsigned i = 0; i < threads; ++i) {
    total += static_cast<int>(fibres[i].give);
    fibres[i].state = Fibre::ready;
  }
  barrier_file = first.file;
  barrier_line = first.line;
  block_epoch = ++clock_now;
  return true;
}

// Nobody can go on. Says who waits where, one thread for each place.
void report_deadlock() {
  std::map<std::string, std::pair<unsigned, unsigned>> places;  // how many, and the first of them
  for (unsigned i = 0; i < threads; ++i) {
    const Fibre& fibre = fibres[i];
    std::string place = "returned";
    if (fibre.state == Fibre::waiting)
      place = (fibre.wait == Wait::block ? "wait for the block at " : "wait for their warp at ") +
              std::string(fibre.file) + ":" + std::to_string(fibre.line);
    auto& entry = places.emplace(place, std::make_pair(0u, i)).first->second;
    ++entry.first;
  }
  std::string text = "barrier divergence in" + here().substr(3) + ":";
  for (const auto& [place, who] : places)
    text += " " + std::to_string(who.first) + " threads (the first is " + describe(who.second) + ") " + place + ";";
  fail(text);
}

void run_block(std::size_t dynamic_bytes) {
  poison_shared(dynamic_bytes);
  block_epoch = ++clock_now;
  barrier_file = "the kernel's start";
  barrier_line = 0;
  std::vector<unsigned> order(threads);
  std::iota(order.begin(), order.end(), 0u);
  if (order_mode == 1) std::reverse(order.begin(), order.end());
  if (order_mode == 2) std::shuffle(order.begin(), order.end(), generator);
  for (unsigned i = 0; i < threads; ++i) {
    fibres[i].state = Fibre::ready;
    fibres[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
  }
  for (;;) {
    bool left = false;
    for (unsigned i : order) {
      if (fibres[i].state == Fibre::ready) resume(fibres[i]);
      if (!fault.empty()) return;
      left |= fibres[i].state != Fibre::done;
    }
    if (!left) break;
    bool released = false;
    for (unsigned w = 0; w * 32 < threads; ++w) released |= release_warp(w);
    if (!released && !release_block()) return report_deadlock();
  }
  for (std::size_t i = dynamic_bytes; i < kArenaBytes; ++i)
    if (arena[i] != kPoison) return fail("a write past dynamic shared memory in" + here().substr(3));
}

// ---- device memory: the host's, poisoned, with a guard behind

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kGuard = 0;  // the sanitizer has its own
#else
constexpr std::size_t kGuard = 256;
#endif
std::mutex memory;
std::map<const char*, std::size_t> allocated, freed;
std::deque<const char*> gone;  // the keys of `freed`, oldest first
std::map<const char*, std::size_t> pinned;

std::string stream_log;  // guarded by `memory`

std::string name_of(cudaStream_t stream) { return std::to_string(reinterpret_cast<std::uintptr_t>(stream)); }
void note(const std::string& what) {
  const std::lock_guard<std::mutex> lock(memory);
  if (stream_log.size() < 1 << 16) stream_log += what + "\n";
}

bool guard_intact(const char* start, std::size_t bytes) {
  for (std::size_t i = 0; i < kGuard; ++i)
    if (static_cast<unsigned char>(start[bytes + i]) != kPoison) return false;
  return true;
}

const char* holder(const std::map<const char*, std::size_t>& ranges, const void* pointer) {
  const auto* p = static_cast<const char*>(pointer);
  auto after = ranges.upper_bound(p);
  if (after == ranges.begin()) return nullptr;
  --after;
  return p < after->first + after->second ? after->first : nullptr;
}

void check_guards() {
  const std::lock_guard<std::mutex> lock(memory);
  for (const auto& [start, bytes] : allocated) {
    if (guard_intact(start, bytes)) continue;
    std::memset(const_cast<char*>(start) + bytes, kPoison, kGuard);  // said once
    fail("a write past the end of " + std::to_string(bytes) + " bytes of device memory");
  }
}

// ---- the device, as far as csrc asks; tests may change it (host_cuda_device)
std::map<int, int> attributes{
    {cudaDevAttrMultiProcessorCount, 2},
    {cudaDevAttrMaxThreadsPerBlock, 1024},
    {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
    {cudaDevAttrMaxSharedMemoryPerBlock, 48 * 1024},
    {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 * 1024},
    {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 * 1024},
    {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
    {cudaDevAttrWarpSize, 32},
    {cudaDevAttrMemoryPoolsSupported, 1},
    {cudaDevAttrMaxGridDimX, 0x7fffffff},
    {cudaDevAttrMaxGridDimY, 65535},
    {cudaDevAttrMaxGridDimZ, 65535},
    {cudaDevAttrL2CacheSize, 50 << 20},
    {cudaDevAttrComputeCapabilityMajor, 9},
    {cudaDevAttrComputeCapabilityMinor, 0},
    {cudaDevAttrMemoryPoolsSupported, 1},
    {cudaDevAttrIntegrated, 0},
};
std::map<const void*, int> raised;  // a kernel's own limit of dynamic shared memory
cudaError_t last_error = cudaSuccess;

cudaError_t remember(cudaError_t code) {
  if (code != cudaSuccess) last_error = code;
  return code;
}

}  // namespace

void meet(Wait what, unsigned mask, std::uint64_t give, const char* file, int line) {
  Fibre& fibre = *current;
  if (what != Wait::block && !(mask >> lane() & 1u))
    return fail("a lane that its own mask leaves out, at " + std::string(file) + ":" + std::to_string(line));
  fibre.wait = what;
  fibre.mask = mask;
  fibre.give = give;
  fibre.file = file;
  fibre.line = line;
  fibre.state = Fibre::waiting;
  yield();
}

unsigned lane() { return number(*current) % 32; }
std::uint64_t lane_value(unsigned l) { return warps[number(*current) / 32].given[l]; }
unsigned lanes_met() { return warps[number(*current) / 32].met[lane()]; }
int block_total() { return total; }
void* dynamic_shared() { return arena; }

unsigned lanes_alive() {
  unsigned alive = 0;
  const unsigned first = number(*current) / 32 * 32;
  for (unsigned l = 0; l < 32 && first + l < threads; ++l)
    alive |= static_cast<unsigned>(fibres[first + l].state != Fibre::done) << l;
  return alive;
}

void touch(const void* address, std::size_t bytes, Access access) {
  if (!current) return;
  const auto* p = static_cast<const unsigned char*>(address);
  std::size_t offset;
  if (p >= statics && p < statics + statics_bytes) {
    offset = static_cast<std::size_t>(p - statics);
  } else if (p >= arena && p < arena + kArenaBytes) {
    offset = static_cast<std::size_t>(p - arena);
    if (offset + bytes > arena_used)
      return fail("an access past dynamic shared memory by " + describe(number(*current)) + here() + ": byte " +
                  std::to_string(offset) + " of " + std::to_string(arena_used));
    offset += statics_bytes;
  } else {
    return;
  }
  const int thread = static_cast<int>(number(*current)), warp = thread / 32;
  for (std::size_t i = offset; i < std::min(offset + bytes, shadow.size()); ++i) {
    Shadow& byte = shadow[i];
    const bool both_atomic = access == Access::atomic && byte.write_atomic;
    if (!both_atomic && !ordered(byte.write, thread, warp))
      return race(byte.write, "wrote", thread, access == Access::read ? "reads" : "writes");
    if (access == Access::read) {
      join(byte.read, thread, warp);
      continue;
    }
    if (!ordered(byte.read, thread, warp)) return race(byte.read, "read", thread, "writes");
    join(byte.write, thread, warp);
    byte.write_atomic = access == Access::atomic;
  }
}

void copy(void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(launching);
  if (!fail_next.empty()) {
    last_fault = std::exchange(fail_next, "");
    return remember(cudaErrorLaunchFailure);
  }
  const dim3 g = config.gridDim, b = config.blockDim;
  const std::uint64_t block_threads = static_cast<std::uint64_t>(b.x) * b.y * b.z;
  // unless raised, the limit is less by what is static in the kernel; how much that is, nobody here knows
  const auto limit =
      raised.count(kernel) ? raised[kernel] : attributes[cudaDevAttrMaxSharedMemoryPerBlock] - kStaticAssumed;
  if (block_threads == 0 || block_threads > kMostThreads || b.z > 64 || g.x == 0 || g.y == 0 || g.z == 0 ||
      g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
    return remember(cudaErrorInvalidConfiguration);
  if (config.dynamicSmemBytes > static_cast<std::size_t>(limit)) return remember(cudaErrorInvalidValue);

  if (!fibres[0].stack) make_stacks();
  find_statics();
  gridDim = g;
  blockDim = b;
  threads = static_cast<unsigned>(block_threads);
  body = &thread;
  fault.clear();
  std::vector<std::uint64_t> order(static_cast<std::uint64_t>(g.x) * g.y * g.z);
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  if (order_mode == 1) std::reverse(order.begin(), order.end());
  if (order_mode == 2) std::shuffle(order.begin(), order.end(), generator);
  for (const std::uint64_t i : order) {
    blockIdx = {static_cast<unsigned>(i % g.x), static_cast<unsigned>(i / g.x % g.y),
                static_cast<unsigned>(i / g.x / g.y)};
    run_block(config.dynamicSmemBytes);
    if (!fault.empty()) break;
  }
  if (fault.empty()) check_guards();
  if (fault.empty()) return cudaSuccess;
  for (Fibre& fibre : fibres)  // whatever was under way is dropped
    if (fibre.state != Fibre::done) fibre.started = false;
  last_fault = fault;
  return remember(cudaErrorLaunchFailure);
}

}  // namespace host_cuda

using namespace host_cuda;

// ---- what the instrumentation calls

extern "C" {

#define HOST_CUDA_HOOK(bytes)                                                                              \
  void __tsan_read##bytes(void* p) { touch(p, bytes, Access::read); }                                      \
  void __tsan_write##bytes(void* p) { touch(p, bytes, Access::write); }                                    \
  void __tsan_unaligned_read##bytes(void* p) { touch(p, bytes, Access::read); }                            \
  void __tsan_unaligned_write##bytes(void* p) { touch(p, bytes, Access::write); }                          \
  void __tsan_volatile_read##bytes(void* p) { touch(p, bytes, Access::read); }                             \
  void __tsan_volatile_write##bytes(void* p) { touch(p, bytes, Access::write); }
HOST_CUDA_HOOK(1)
HOST_CUDA_HOOK(2)
HOST_CUDA_HOOK(4)
HOST_CUDA_HOOK(8)
HOST_CUDA_HOOK(16)
void __tsan_read_range(void* p, std::size_t bytes) { touch(p, bytes, Access::read); }
void __tsan_write_range(void* p, std::size_t bytes) { touch(p, bytes, Access::write); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}

// All of UBSan's reports begin with the place: file, line, column.
struct HostCudaPlace {
  const char* file;
  std::uint32_t line, column;
};
static void undefined(const char* what, const HostCudaPlace* place) {
  std::string text = std::string(what) + " at " + (place->file ? place->file : "?") + ":" + std::to_string(place->line);
  if (!current) std::fprintf(stderr, "host CUDA: %s, outside a kernel\n", text.c_str());
  else text += " by " + describe(number(*current)) + here();
  fail(text);
}
#define HOST_CUDA_UNDEFINED(name, what, ...) \
  void __ubsan_handle_##name(HostCudaPlace* place, ##__VA_ARGS__) { undefined(what, place); }
HOST_CUDA_UNDEFINED(type_mismatch_v1, "a misaligned or null address", void*)
HOST_CUDA_UNDEFINED(out_of_bounds, "an index outside its array", void*)
HOST_CUDA_UNDEFINED(shift_out_of_bounds, "a shift by too much", void*, void*)
HOST_CUDA_UNDEFINED(add_overflow, "an overflow of +", void*, void*)
HOST_CUDA_UNDEFINED(sub_overflow, "an overflow of -", void*, void*)
HOST_CUDA_UNDEFINED(mul_overflow, "an overflow of *", void*, void*)
HOST_CUDA_UNDEFINED(negate_overflow, "an overflow of unary -", void*)
HOST_CUDA_UNDEFINED(divrem_overflow, "a division by zero", void*, void*)

// ---- for tests

// 0: threads and blocks in ascending order, 1: descending, 2: shuffled by `seed`.
void host_cuda_order(int mode, unsigned seed) {
  order_mode = mode;
  generator.seed(seed);
}
void host_cuda_device(int attribute, int value) { attributes[attribute] = value; }
void host_cuda_fail_next(const char* why) { fail_next = why; }
void host_cuda_capture(int on) { capturing = on != 0; }
// What streams were told since the last call, a line each: "<stream> waits for <stream>", "free on <stream>", "sync".
const char* host_cuda_streams() {
  static std::string told;
  const std::lock_guard<std::mutex> lock(memory);
  told = std::exchange(stream_log, "");
  return told.c_str();
}

// ---- the runtime

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }
const char* cudaGetErrorName(cudaError_t code) {
  return code == cudaSuccess ? "cudaSuccess" : code == cudaErrorLaunchFailure ? "cudaErrorLaunchFailure" : "cudaError";
}
const char* cudaGetErrorString(cudaError_t code) {
  switch (code) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchFailure: return last_fault.c_str();
    default: return "unrecognized error code";
  }
}

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return remember(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaDeviceSynchronize() { return note("sync"), cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return remember(cudaErrorInvalidDevice);
  const auto found = attributes.find(attribute);
  if (found == attributes.end()) return remember(cudaErrorInvalidValue);
  *value = found->second;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* to, const void*) {
  *to = cudaFuncAttributes{};
  to->maxThreadsPerBlock = 1024;
  to->numRegs = 32;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > attributes[cudaDevAttrMaxSharedMemoryPerBlockOptin]) return remember(cudaErrorInvalidValue);
  raised[kernel] = value;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int block, std::size_t shared) {
  const int by_threads = attributes[cudaDevAttrMaxThreadsPerMultiProcessor] / std::max(block, 1);
  const auto whole = static_cast<std::size_t>(attributes[cudaDevAttrMaxSharedMemoryPerMultiprocessor]);
  *blocks = std::min(by_threads, static_cast<int>(whole / (shared + 1024)));
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  void* got = nullptr;
  if (posix_memalign(&got, 256, bytes + kGuard) != 0) return remember(cudaErrorMemoryAllocation);
  std::memset(got, kPoison, bytes + kGuard);
  const std::lock_guard<std::mutex> lock(memory);
  allocated[static_cast<const char*>(got)] = bytes;
  *pointer = got;
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  if (!pointer) return cudaSuccess;
  const std::lock_guard<std::mutex> lock(memory);
  const auto found = allocated.find(static_cast<const char*>(pointer));
  if (found == allocated.end()) return remember(cudaErrorInvalidValue);
  const bool intact = guard_intact(found->first, found->second);
#ifdef __SANITIZE_ADDRESS__
  std::free(pointer);  // it finds later uses itself
#else
  // Kept for a while, so that later uses are seen and the address is nobody else's.
  std::memset(pointer, kPoison, found->second);
  freed[found->first] = found->second;
  gone.push_back(found->first);
  if (gone.size() > 64) {
    freed.erase(gone.front());
    std::free(const_cast<char*>(gone.front()));
    gone.pop_front();
  }
#endif
  allocated.erase(found);
  if (intact) return cudaSuccess;
  last_fault = "a write past the end of device memory, found when it was freed";
  return remember(cudaErrorLaunchFailure);
}
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t) { return cudaMalloc(pointer, bytes); }
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  note("free on " + name_of(stream));
  return cudaFree(pointer);
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  return *pool = reinterpret_cast<cudaMemPool_t>(&allocated), cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMallocFromPoolAsync(void** pointer, std::size_t bytes, cudaMemPool_t, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  if (!(*pointer = std::malloc(bytes))) return remember(cudaErrorMemoryAllocation);
  const std::lock_guard<std::mutex> lock(memory);
  pinned[static_cast<const char*>(*pointer)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard<std::mutex> lock(memory);
  pinned.erase(static_cast<const char*>(pointer));
  return std::free(pointer), cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  return std::memmove(to, from, bytes), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  if (!recording) return cudaMemcpy(to, from, bytes, kind);
  recording->push_back([=] { cudaMemcpy(to, from, bytes, kind); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) { return std::memset(to, value, bytes), cudaSuccess; }
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  return cudaMemset(to, value, bytes);
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* all) {
  return *free = *all = std::size_t{1} << 30, cudaSuccess;
}
// The host's memory is the device's: any address is device memory, but for pinned memory and what cudaFree has taken back.
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* to, const void* pointer) {
  const std::lock_guard<std::mutex> lock(memory);
  *to = cudaPointerAttributes{};
  const bool gone = !holder(allocated, pointer) && holder(freed, pointer);
  to->type = gone ? cudaMemoryTypeUnregistered : holder(pinned, pointer) ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  to->device = gone ? -2 : 0;
  to->devicePointer = gone ? nullptr : const_cast<void*>(pointer);
  return cudaSuccess;
}

// Work is done when it is asked for: streams keep nothing, and an event only the name of its stream.
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return *stream = nullptr, cudaSuccess; }
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return *stream = nullptr, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return note("wait for " + name_of(stream)), cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  note(name_of(stream) + " waits for " + name_of(reinterpret_cast<cudaStream_t*>(event)[0]));
  return cudaSuccess;
}
// A graph is a list of copies and host functions; kernels are not recorded.
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  return *status = capturing || recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) {
  if (recording) return remember(cudaErrorStreamCaptureUnsupported);
  return recording = new Recorded, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  *graph = reinterpret_cast<cudaGraph_t>(recording);
  return recording = nullptr, cudaSuccess;
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  return *ready = reinterpret_cast<cudaGraphExec_t>(new Recorded(*reinterpret_cast<Recorded*>(graph))), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t) {
  for (const auto& work : *reinterpret_cast<Recorded*>(ready)) work();
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete reinterpret_cast<Recorded*>(graph), cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) { return delete reinterpret_cast<Recorded*>(ready), cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t function, void* data) {
  if (!recording) return function(data), cudaSuccess;
  recording->push_back([=] { function(data); });
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = reinterpret_cast<cudaEvent_t>(new cudaStream_t{}), cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return *reinterpret_cast<cudaStream_t*>(event) = stream, cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { return *ms = 0, cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete reinterpret_cast<cudaStream_t*>(event), cudaSuccess; }

}  // extern "C"
