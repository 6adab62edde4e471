# Adds the CUDA kernels to the module when there is a working nvcc. The runtime library is linked statically and
# loads the driver when first used, so the module also imports on a machine without one.
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

# Of the architectures wanted, those this nvcc knows: code for each, and PTX of the last for what comes after it.
execute_process(COMMAND ${PYLDFUSION_NVCC} --list-gpu-arch
                OUTPUT_VARIABLE known ERROR_VARIABLE known RESULT_VARIABLE failed)
set(CMAKE_CUDA_ARCHITECTURES "")
foreach(arch IN LISTS PYLDFUSION_CUDA_ARCHITECTURES)
  if(known MATCHES "compute_${arch}[^0-9]")
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${arch}-real)
    set(newest ${arch})
  endif()
endforeach()
if(failed OR NOT CMAKE_CUDA_ARCHITECTURES)
  no_cuda("${PYLDFUSION_NVCC} knows none of the architectures ${PYLDFUSION_CUDA_ARCHITECTURES}; it says: ${known}")
  return()
endif()
list(APPEND CMAKE_CUDA_ARCHITECTURES ${newest}-virtual)

# An nvcc that refuses the C++ compiler at hand is common; find out before CMake makes it an error.
set(probe ${CMAKE_CURRENT_BINARY_DIR}/probe.cu)
file(WRITE ${probe} "#include <cstdint>\n__global__ void probe(std::int32_t* p) { *p = 1; }\n")
execute_process(COMMAND ${PYLDFUSION_NVCC} -std=c++17 -arch=compute_${newest} -c ${probe} -o ${probe}.o
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
enable_language(CUDA)
message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")

add_library(pyldfusion_cuda OBJECT csrc/adain.cu csrc/entropy.cu csrc/frame_input.cu csrc/frame_output.cu csrc/frame_stats.cu)
target_compile_options(pyldfusion_cuda PRIVATE -Werror all-warnings -Xcompiler -Wall,-Wextra)
target_link_libraries(_native PRIVATE pyldfusion_cuda)
target_compile_definitions(_native PRIVATE PYLDFUSION_CUDA_VERSION="${CMAKE_CUDA_COMPILER_VERSION}")
