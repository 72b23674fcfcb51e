/* Shared by all headers of libmavis: C++ guards, attributes and checks of struct layouts.
 *
 * The headers need POSIX types. Compilers define them by default; with -std=c99 or the like, define
 * _POSIX_C_SOURCE or _DEFAULT_SOURCE. */
#ifndef MISC_CDEFS_H
#define MISC_CDEFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
#define MAVIS_BEGIN_DECLS extern "C" {
#define MAVIS_END_DECLS }
#else
#define MAVIS_BEGIN_DECLS
#define MAVIS_END_DECLS
#endif

/* MAVIS_PRINTF(f, a): argument f is a printf format, and its values start at argument a.
 * MAVIS_NORETURN: the function ends the process or jumps elsewhere. */
#if defined(__GNUC__)
#define MAVIS_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define MAVIS_NORETURN __attribute__((noreturn))
#define MAVIS_UNUSED __attribute__((unused))
#else
#define MAVIS_PRINTF(f, a)
#define MAVIS_NORETURN
#define MAVIS_UNUSED
#endif

/* Functions defined in headers. */
#define MAVIS_INLINE static inline MAVIS_UNUSED

/* MAVIS_ASSERT(name, condition): compilation fails if the condition is false. */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define MAVIS_ASSERT(name, condition) static_assert(condition, #name)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define MAVIS_ASSERT(name, condition) _Static_assert(condition, #name)
#else
#define MAVIS_ASSERT(name, condition) typedef char mavis_assert_##name[(condition) ? 1 : -1] MAVIS_UNUSED
#endif

/* The binary interface is that of systems with 64-bit long and pointers. Struct layouts are checked
 * there; elsewhere they are whatever the compiler makes of the declarations. */
#if defined(__LP64__)
#define MAVIS_SIZE(type, tag, size) MAVIS_ASSERT(size_of_##tag, sizeof(type) == (size))
#define MAVIS_OFFSET(type, tag, field, at) MAVIS_ASSERT(tag##_##field, offsetof(type, field) == (at))
#else
#define MAVIS_SIZE(type, tag, size) MAVIS_ASSERT(size_of_##tag, 1)
#define MAVIS_OFFSET(type, tag, field, at) MAVIS_ASSERT(tag##_##field, 1)
#endif

#endif
