# Read by CMake when it comes to llama.cpp's own project inside llama-cpp-python's build (CMAKE_PROJECT_llama.cpp_INCLUDE).
# llama-cpp-python always asks for llama.cpp's "common" library and never uses it; it is more than a third of the work.
set(LLAMA_BUILD_COMMON OFF)

# GCC 12 leaves out most of what llama.cpp tells the processor about AMX tiles, where it has them: an illegal instruction.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include '${CMAKE_CURRENT_LIST_DIR}/amx_tiles.h'>")

# Where the processor computes in f16, llama.cpp's loops over f16 take 128 numbers at a time, and what is left one by one:
# with heads of 64 that is all of the weighted sum of its own attention.
include(CheckCXXCompilerFlag)
check_cxx_compiler_flag(-mno-avx512fp16 WITHOUT_AVX512FP16)
if(WITHOUT_AVX512FP16)
    add_compile_options(-mno-avx512fp16)
endif()

# Puts our kernels before those of llama.cpp in one of its files: in each pair of texts, the second for the first. A file
# that has not each of them exactly once is another llama.cpp's, and stays as it is: slower, and as right.
function(put_before name)
    set(path "${CMAKE_CURRENT_SOURCE_DIR}/ggml/src/ggml-cpu/${name}")
    set(code "")
    if(EXISTS "${path}")
        file(READ "${path}" code)
    endif()
    if(code MATCHES "firstdraft")
        return()
    endif()
    math(EXPR last "${ARGC} - 1")
    foreach(place RANGE 1 ${last} 2)
        math(EXPR next "${place} + 1")
        set(old "${ARGV${place}}")
        string(FIND "${code}" "${old}" first)
        string(FIND "${code}" "${old}" other REVERSE)
        if(first EQUAL -1 OR NOT first EQUAL other)
            message(WARNING "llama.cpp's ${name} is not the one that our kernels are for: it is built without them")
            return()
        endif()
        string(REPLACE "${old}" "${ARGV${next}}" code "${code}")
    endforeach()
    file(WRITE "${path}" "// With firstdraft's kernels.\n${code}")
endfunction()

put_before(ops.cpp
    [[static void ggml_compute_forward_flash_attn_ext_f16(
        const ggml_compute_params * params,
        ggml_tensor * dst) {
]]
    "#include \"${CMAKE_CURRENT_LIST_DIR}/attention.h\"
#include \"${CMAKE_CURRENT_LIST_DIR}/spread.h\"
static void ggml_compute_forward_flash_attn_ext_f16(
        const ggml_compute_params * params,
        ggml_tensor * dst) {
#ifdef GATHERED_ATTENTION
    if (gathered::takes(dst)) {
        gathered::forward(params, dst);
        return;
    }
#endif
"
)

put_before(amx/amx.cpp
    "#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)
"
    "#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)
#include \"${CMAKE_CURRENT_LIST_DIR}/q8_0.h\"
"
    "        size = ggml_backend_amx_desired_wsize(op);
"
    "        size = q8_0::takes(op->src[0]) ? q8_0::work_size(op) : ggml_backend_amx_desired_wsize(op);
"
    "        if (op->op == GGML_OP_MUL_MAT) {
"
    "        if (q8_0::takes(op->src[0])) {
            q8_0::forward(params, op);
            return true;
        }
        if (op->op == GGML_OP_MUL_MAT) {
"
    "    if (qtype_has_amx_kernels(tensor->type)) {
"
    "    if (q8_0::takes(tensor)) {
        GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));
        q8_0::pack(tensor, data);
    } else if (qtype_has_amx_kernels(tensor->type)) {
"
    "    /* .get_tensor      = */ nullptr,
"
    "    /* .get_tensor      = */ q8_0::get_tensor,
"
    "    return ggml_backend_amx_get_alloc_size(tensor);
"
    "    return q8_0::takes(tensor) ? ggml_nbytes(tensor) : ggml_backend_amx_get_alloc_size(tensor);
"
    "        if (op->op != GGML_OP_MUL_MAT) {
"
    "        if (op->op == GGML_OP_GET_ROWS) {
            return q8_0::is_table(op->src[0]) && ggml_is_contiguous(op->src[0]) && ggml_is_contiguous(op->src[1]);
        }
        if (op->op != GGML_OP_MUL_MAT) {
"
    "        if (op->op == GGML_OP_MUL_MAT && op->src[0]->buffer &&
"
    "        if ((op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_GET_ROWS) && op->src[0]->buffer &&
"
)
