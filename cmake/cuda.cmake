# Builds pyldfusion/_cuda*.so, the CUDA kernels, when there is a working nvcc. Whether a GPU is present plays no part.
# The runtime library is linked statically and loads the driver when first used, so the module also imports on a
# machine without one.
function(no_cuda why)
  if(PYLDFUSION_CUDA STREQUAL auto)
    message(STATUS "Building without CUDA: ${why}")
  else()
    message(FATAL_ERROR "PYLDFUSION_CUDA=${PYLDFUSION_CUDA}, but ${why}\n"
                        "Install the CUDA toolkit and put nvcc on PATH (or set CUDACXX), or use PYLDFUSION_CUDA=0")
  endif()
endfunction()

find_program(PYLDFUSION_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS /usr/local/cuda)
if(DEFINED ENV{CUDACXX})
  set(PYLDFUSION_NVCC $ENV{CUDACXX})
endif()
if(NOT PYLDFUSION_NVCC)
  no_cuda("no nvcc was found.")
  return()
endif()

# Architectures: "default" and "all" are lists of which nvcc must know one; numbers of one's own it must know all.
# Code for each, and PTX of the last for what comes after it. "native" is the GPU of this machine.
set(wanted ${PYLDFUSION_CUDA_ARCHITECTURES})
set(lists_default 75 87 90)
set(lists_all 75 80 86 87 89 90 100 110 120)
execute_process(COMMAND ${PYLDFUSION_NVCC} --list-gpu-arch
                OUTPUT_VARIABLE known ERROR_VARIABLE known RESULT_VARIABLE failed)
if(wanted MATCHES "^(default|all)$")
  set(wanted ${lists_${wanted}})
  set(some_may_be_unknown TRUE)
endif()
set(architectures "")
if(wanted STREQUAL native)
  set(probe_arch native)
else()
  foreach(arch IN LISTS wanted)
    if(known MATCHES "compute_${arch}[^0-9]")
      list(APPEND architectures ${arch}-real)
      set(newest ${arch})
    elseif(NOT failed AND NOT some_may_be_unknown)
      message(FATAL_ERROR "PYLDFUSION_CUDA_ARCHITECTURES asks for ${arch}; ${PYLDFUSION_NVCC} knows: ${known}")
    endif()
  endforeach()
  if(failed OR NOT architectures)
    no_cuda("${PYLDFUSION_NVCC} knows none of the architectures ${wanted}; it says: ${known}")
    return()
  endif()
  list(APPEND architectures ${newest}-virtual)
  set(probe_arch compute_${newest})
endif()

# An nvcc that refuses the C++ compiler at hand is common, and one may be too old; find out before CMake makes it an
# error.
set(probe ${CMAKE_CURRENT_BINARY_DIR}/probe.cu)
file(WRITE ${probe} "#include <cstdint>\n#if CUDART_VERSION < 11080\n#error CUDA 11.8 or newer is needed\n#endif\n"
                    "__global__ void probe(std::int32_t* p) { *p = 1; }\n")
execute_process(COMMAND ${PYLDFUSION_NVCC} -std=c++17 -arch=${probe_arch} -c ${probe} -o ${probe}.o
                OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE failed)
if(failed)
  no_cuda("${PYLDFUSION_NVCC} does not work: ${said}")
  return()
endif()

set(CMAKE_CUDA_COMPILER ${PYLDFUSION_NVCC})
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
if(architectures)
  set(CMAKE_CUDA_ARCHITECTURES ${architectures})
else()
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} -arch=native")  # CMake itself knows the word from 3.24
endif()
enable_language(CUDA)
message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${wanted}")

file(GLOB kernels CONFIGURE_DEPENDS csrc/*.cu)
add_library(pyldfusion_kernels OBJECT ${kernels})
target_compile_options(pyldfusion_kernels PRIVATE -Xcompiler -Wall,-Wextra)
if(PYLDFUSION_WERROR)
  target_compile_options(pyldfusion_kernels PRIVATE -Werror all-warnings)
endif()

pybind11_add_module(_cuda MODULE NO_EXTRAS csrc/cuda_bindings.cpp)
target_include_directories(_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_definitions(_cuda PRIVATE PYLDFUSION_CUDA_VERSION="${CMAKE_CUDA_COMPILER_VERSION}")
target_compile_options(_cuda PRIVATE -Wall -Wextra $<$<BOOL:${PYLDFUSION_WERROR}>:-Werror>)
target_link_libraries(_cuda PRIVATE pyldfusion_kernels Threads::Threads)
target_link_options(_cuda PRIVATE $<$<CONFIG:Release>:-s>)
set_target_properties(_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PYLDFUSION_OUTPUT_DIR})
