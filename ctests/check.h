/* The test macros: a failed check prints where and what, and the program goes on; main returns check_result(). */
#ifndef LAYERLINE_CTESTS_CHECK_H
#define LAYERLINE_CTESTS_CHECK_H

#include "layerline.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* CTest's SKIP_RETURN_CODE. */
#define CHECK_SKIP 77

/* May be called from any thread. */
void check_failed(const char *file, int line, const char *text);
int check_result(void);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            check_failed(__FILE__, __LINE__, #condition);                                                              \
        }                                                                                                              \
    } while (0)

/* For what the rest of the test stands on. */
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            check_failed(__FILE__, __LINE__, #condition);                                                              \
            exit(check_result());                                                                                      \
        }                                                                                                              \
    } while (0)

/* `call` returns a status. */
#define CHECK_STATUS(expected, call) check_status(__FILE__, __LINE__, #call, (expected), (call))
bool check_status(const char *file, int line, const char *text, layerline_status expected, layerline_status found);

/* `call` returns a status and writes `err`, a layerline_error* of the caller's. Success must have set it to NULL,
 * failure to an error of the same status with something to say. It is freed here and NULL afterwards. */
#define CHECK_OK(err, call) CHECK_ERROR(LAYERLINE_OK, err, call)
#define REQUIRE_OK(err, call)                                                                                          \
    do {                                                                                                               \
        if (!CHECK_OK(err, call)) {                                                                                    \
            exit(check_result());                                                                                      \
        }                                                                                                              \
    } while (0)
#define CHECK_ERROR(expected, err, call)                                                                               \
    ((err) = check_unwritten(), check_error(__FILE__, __LINE__, #call, (expected), (call), &(err)))
layerline_error *check_unwritten(void);
bool check_error(const char *file, int line, const char *text, layerline_status expected, layerline_status found,
                 layerline_error **err);

/* As CHECK_ERROR with LAYERLINE_ERROR_MEMORY_BUDGET; the message must also hold two figures, at least. */
#define CHECK_BUDGET_ERROR(err, call)                                                                                  \
    ((err) = check_unwritten(), check_budget_error(__FILE__, __LINE__, #call, (call), &(err)))
bool check_budget_error(const char *file, int line, const char *text, layerline_status found, layerline_error **err);

#ifdef __cplusplus
}
#endif

#endif
