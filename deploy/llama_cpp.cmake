# Read by CMake when it comes to llama.cpp's own project inside llama-cpp-python's build (CMAKE_PROJECT_llama.cpp_INCLUDE).
# llama-cpp-python always asks for llama.cpp's "common" library and never uses it; it is more than a third of the work.
set(LLAMA_BUILD_COMMON OFF)

# GCC 12 leaves out most of what llama.cpp tells the processor about AMX tiles, where it has them: an illegal instruction.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include '${CMAKE_CURRENT_LIST_DIR}/amx_tiles.h'>")

# Where the processor computes in f16, its loops over f16 take 128 numbers at a time, and what is left one by one: with
# heads of 64 that is all of attention's weighted sum. A row behind 512 tokens takes 4 ms so, and 18 ms otherwise.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-avx512fp16 WITHOUT_AVX512FP16)
if(WITHOUT_AVX512FP16)
    add_compile_options(-mno-avx512fp16)
endif()

# Attention looks at each cell of the cache that many sequences share, for each head, to find that most are not its row's.
# Four at a time: f16's minus infinity is 0xFC00. Without this text there, llama.cpp is built as it is.
set(attention "${CMAKE_CURRENT_SOURCE_DIR}/ggml/src/ggml-cpu/ops.cpp")
file(READ "${attention}" code)
string(REPLACE
    "            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
"
    "            while (mp && ic + 4 <= ic_end && four_hidden(mp + ic)) { ic += 4; }
            if (ic >= ic_end) { break; }
            const float mv = mp ? slope*GGML_CPU_FP16_TO_FP32(mp[ic]) : 0.0f;
" changed "${code}")
string(REPLACE
    "                bool can_skip = true;
"
    "                bool hidden = kv_tile % 4 == 0;
                for (int tq = 0; hidden && tq < tile_rows; tq++) {
                    const ggml_fp16_t * row = (const ggml_fp16_t *)((const char *) mask->data + (iq1 + tq)*mask->nb[1] + (iq2%mask->ne[2])*mask->nb[2] + (iq3%mask->ne[3])*mask->nb[3]);
                    for (int tk = 0; hidden && tk < kv_tile; tk += 4) {
                        hidden = four_hidden(row + ic + tk);
                    }
                }
                if (hidden) { continue; }
                bool can_skip = true;
" changed "${changed}")
string(REPLACE
    "static void ggml_compute_forward_flash_attn_ext_f16_one_chunk("
    "static inline bool four_hidden(const ggml_fp16_t * mask) {
    uint64_t four;
    memcpy(&four, mask, sizeof(four));
    return four == 0xFC00FC00FC00FC00;
}

static void ggml_compute_forward_flash_attn_ext_f16_one_chunk(" changed "${changed}")
if(NOT code MATCHES "four_hidden" AND changed MATCHES "four_hidden.*four_hidden.*four_hidden")
    file(WRITE "${attention}" "${changed}")
endif()
