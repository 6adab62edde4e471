// The part of DLPack's ABI that the bindings use (https://dmlc.github.io/dlpack): the structures inside capsules named
// "dltensor" (version 0) and "dltensor_versioned" (version 1).
#pragma once

#include <cstdint>

namespace ldf::dlpack {

enum DeviceType : std::int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : std::uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };

struct Device {
  std::int32_t type;  // a DeviceType, or one of other makers
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;    // [ndim]
  std::int64_t* strides;  // [ndim] in elements; null: C order
  std::uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);  // may be null; called once, by the consumer, from any thread
  static constexpr const char* kName = "dltensor";
  static constexpr const char* kUsedName = "used_dltensor";
};

struct ManagedVersioned {
  struct {
    std::uint32_t major, minor;
  } version;  // of another major version: only the deleter may be used
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
  static constexpr const char* kName = "dltensor_versioned";
  static constexpr const char* kUsedName = "used_dltensor_versioned";
  static constexpr std::uint32_t kMajor = 1;
  static constexpr std::uint64_t kReadOnly = 1;
};

}  // namespace ldf::dlpack
