/* What llama.cpp's kernels for 64-bit ARM make of the same sizes: peer KERNEL TOKENS ROWS COLUMNS TIMES.
 * `dot_FORMAT` takes rows as they are in a file, one at a time; `dots_FORMAT` two rows with two tokens; `gemv_...` and
 * `gemm_...` take rows that were rearranged when the model was loaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void dot_kernel(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int nrc);
typedef void rearranged_kernel(int n, float *s, size_t bs, const void *x, const void *y, int nr, int nc);

dot_kernel ggml_vec_dot_q4_K_q8_K, ggml_vec_dot_q8_0_q8_0;
rearranged_kernel ggml_gemv_q4_K_8x4_q8_K, ggml_gemv_q4_K_8x8_q8_K, ggml_gemv_q8_0_4x4_q8_0, ggml_gemv_q8_0_4x8_q8_0;
rearranged_kernel ggml_gemm_q4_K_8x4_q8_K, ggml_gemm_q4_K_8x8_q8_K, ggml_gemm_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x8_q8_0;

static const struct {
    const char *name;
    rearranged_kernel *kernel;
} rearranged[] = {
    {"gemv_q4_K_8x4", ggml_gemv_q4_K_8x4_q8_K}, {"gemv_q4_K_8x8", ggml_gemv_q4_K_8x8_q8_K},
    {"gemv_q8_0_4x4", ggml_gemv_q8_0_4x4_q8_0}, {"gemv_q8_0_4x8", ggml_gemv_q8_0_4x8_q8_0},
    {"gemm_q4_K_8x4", ggml_gemm_q4_K_8x4_q8_K}, {"gemm_q4_K_8x8", ggml_gemm_q4_K_8x8_q8_K},
    {"gemm_q8_0_4x4", ggml_gemm_q8_0_4x4_q8_0}, {"gemm_q8_0_4x8", ggml_gemm_q8_0_4x8_q8_0},
};

int main(int count, char **args) {
    if (count != 6) {
        fprintf(stderr, "peer KERNEL TOKENS ROWS COLUMNS TIMES\n");
        return 1;
    }
    const char *name = args[1];
    int tokens = atoi(args[2]), rows = atoi(args[3]), k = atoi(args[4]), times = atoi(args[5]);
    int q4 = strstr(name, "q4_K") != NULL;
    size_t row = q4 ? (size_t)k / 256 * 144 : (size_t)k / 32 * 34;
    size_t token = q4 ? (size_t)k / 256 * 292 : (size_t)k / 32 * 34;
    char *w = calloc(rows, row), *x = calloc(tokens, token);
    float *s = calloc(rows, tokens * sizeof(float));
    if (!w || !x || !s) {
        return 1;
    }
    for (int i = 0; i < times; i++) {
        if (strncmp(name, "dot", 3) == 0) {
            dot_kernel *kernel = q4 ? ggml_vec_dot_q4_K_q8_K : ggml_vec_dot_q8_0_q8_0;
            int step = name[3] == 's' ? 2 : 1;
            for (int t = 0; t < tokens; t += step) {
                for (int r = 0; r < rows; r += step) {
                    kernel(k, s + (size_t)t * rows + r, rows, w + r * row, row, x + t * token, token, step);
                }
            }
            continue;
        }
        for (size_t j = 0; j < sizeof(rearranged) / sizeof(*rearranged); j++) {
            if (strcmp(name, rearranged[j].name) == 0) {
                rearranged[j].kernel(k, s, rows, w, x, tokens, rows);
            }
        }
    }
    printf("%g\n", s[0]);
    return 0;
}
