# Read by CMake when it comes to llama.cpp's own project inside llama-cpp-python's build (CMAKE_PROJECT_llama.cpp_INCLUDE).
# llama-cpp-python always asks for llama.cpp's "common" library and never uses it; it is more than a third of the work.
set(LLAMA_BUILD_COMMON OFF)

# GCC 12 leaves out most of what llama.cpp tells the processor about AMX tiles, where it has them: an illegal instruction.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include '${CMAKE_CURRENT_LIST_DIR}/amx_tiles.h'>")
