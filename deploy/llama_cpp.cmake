# Read by CMake when it comes to llama.cpp's own project inside llama-cpp-python's build (CMAKE_PROJECT_llama.cpp_INCLUDE).
# llama-cpp-python always asks for llama.cpp's "common" library and never uses it; it is more than a third of the work.
set(LLAMA_BUILD_COMMON OFF)
