/* Shared by the test programs: assertions that print file, line and the expected value, captured output, and
 * functions that run in a process of their own.
 *
 * Environment: TEST_DIR is a directory for files; MAVIS_ORIGINAL=1 says that the library under test is the C
 * project's, whose known bugs are not counted as failures. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <fcntl.h>
#include <mavis/mavis.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int check_failures;

/* Literals for functions whose parameters are char *. */
#define T(text) ((char *)(text))

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            check_failures++;                                                         \
            printf("%s:%d: expected: %s\n", __FILE__, __LINE__, #condition);          \
        }                                                                             \
    } while (0)

MAVIS_INLINE void check_int(const char *file, int line, const char *what, long long got, long long expected)
{
    if (got != expected) {
        check_failures++;
        printf("%s:%d: %s: expected %lld (0x%llx), got %lld (0x%llx)\n", file, line, what, expected,
               (unsigned long long)expected, got, (unsigned long long)got);
    }
}
#define CHECK_INT(got, expected) check_int(__FILE__, __LINE__, #got, (long long)(got), (long long)(expected))

MAVIS_INLINE void check_text(const char *file, int line, const char *what, const char *got, const char *expected)
{
    if (got == expected || (got && expected && !strcmp(got, expected)))
        return;
    check_failures++;
    printf("%s:%d: %s: expected %s%s%s, got %s%s%s\n", file, line, what, expected ? "\"" : "",
           expected ? expected : "NULL", expected ? "\"" : "", got ? "\"" : "", got ? got : "NULL", got ? "\"" : "");
}
#define CHECK_TEXT(got, expected) check_text(__FILE__, __LINE__, #got, (got), (expected))

MAVIS_INLINE void check_has(const char *file, int line, const char *what, const char *got, const char *part)
{
    if (got && strstr(got, part))
        return;
    check_failures++;
    printf("%s:%d: %s: expected text with \"%s\", got %s\n", file, line, what, part, got ? got : "NULL");
}
#define CHECK_HAS(got, part) check_has(__FILE__, __LINE__, #got, (got), (part))

/* Compares memory to hexadecimal digits. */
MAVIS_INLINE void check_hex(const char *file, int line, const char *what, const void *got, const char *expected)
{
    char text[1024];
    size_t length = strlen(expected) / 2;
    for (size_t i = 0; i < length; i++)
        snprintf(text + 2 * i, 3, "%02x", ((const unsigned char *)got)[i]);
    text[2 * length] = 0;
    check_text(file, line, what, text, expected);
}
#define CHECK_HEX(got, expected) check_hex(__FILE__, __LINE__, #got, (got), (expected))

/* Whether the library under test is the C project's. Determined once, because a program may lose its environment. */
static int original MAVIS_UNUSED;

__attribute__((constructor)) static void check_start(void)
{
    const char *value = getenv("MAVIS_ORIGINAL");
    original = value && *value == '1';
    /* What was found must be visible even if the next check crashes. */
    setvbuf(stdout, NULL, _IOLBF, 0);
}

/* The exit status of a test program. */
MAVIS_INLINE int check_result(void)
{
    if (check_failures)
        printf("%d failed\n", check_failures);
    fflush(stdout);
    return check_failures ? 1 : 0;
}

/* A path below TEST_DIR, malloc'ed. */
MAVIS_INLINE char *test_path(const char *name)
{
    const char *directory = getenv("TEST_DIR");
    char *path;
    if (!directory) {
        puts("TEST_DIR is not set");
        exit(2);
    }
    path = (char *)malloc(strlen(directory) + strlen(name) + 2);
    sprintf(path, "%s/%s", directory, name);
    return path;
}

/* Writes a file below TEST_DIR; returns its path, malloc'ed. */
MAVIS_INLINE char *test_file(const char *name, const char *text)
{
    char *path = test_path(name);
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file)) {
        perror(path);
        exit(2);
    }
    return path;
}

/* The contents of a file, malloc'ed. */
MAVIS_INLINE char *read_all(int fd)
{
    size_t size = 0;
    char *text = (char *)calloc(1, 65537);
    ssize_t length;
    while ((length = read(fd, text + size, 65536)) > 0) {
        size += (size_t)length;
        text = (char *)realloc(text, size + 65537);
        text[size] = 0;
    }
    text[size] = 0;
    return text;
}

MAVIS_INLINE char *file_text(const char *path)
{
    int fd = open(path, O_RDONLY);
    char *text;
    if (fd < 0)
        return NULL;
    text = read_all(fd);
    close(fd);
    return text;
}

/* Everything written to stderr between the two calls, syslog messages included; malloc'ed. */
static int capture_saved = -1, capture_file = -1;

MAVIS_INLINE void capture_begin(void)
{
    char *path = test_path("capture.XXXXXX");
    fflush(stderr);
    capture_file = mkstemp(path);
    unlink(path);
    free(path);
    capture_saved = dup(2);
    dup2(capture_file, 2);
}

MAVIS_INLINE char *capture_end(void)
{
    char *text;
    fflush(stderr);
    dup2(capture_saved, 2);
    close(capture_saved);
    lseek(capture_file, 0, SEEK_SET);
    text = read_all(capture_file);
    close(capture_file);
    return text;
}

/* Runs `fn(arg)` in a child process. Returns its exit status, or 256 plus the signal that ended it; `*text` is its
 * stderr. An alarm kills a child that has not ended after twenty seconds. */
MAVIS_INLINE int in_child(void (*fn)(void *), void *arg, char **text)
{
    int status = 0;
    pid_t pid;
    int pipes[2];
    char *output;
    fflush(stdout);
    if (pipe(pipes))
        exit(2);
    pid = fork();
    if (pid == 0) {
        dup2(pipes[1], 2);
        close(pipes[0]);
        close(pipes[1]);
        check_failures = 0;
        alarm(20);
        fn(arg);
        fflush(stdout);
        _exit(check_failures ? 101 : 100);
    }
    close(pipes[1]);
    output = read_all(pipes[0]);
    close(pipes[0]);
    waitpid(pid, &status, 0);
    if (text)
        *text = output;
    else
        free(output);
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}
/* What in_child() returns if the function returned, with and without failed checks. */
#define RETURNED 100

/* A line number, counted from 0, as the library reports it: the original counts from 0, ours from 1. */
MAVIS_INLINE int line_number(int line)
{
    return original ? line : line + 1;
}

/* A copy of an expected message in which each `:@N: ` stands for the number of line N; malloc'ed. */
MAVIS_INLINE char *with_lines(const char *message)
{
    char *text = (char *)malloc(2 * strlen(message) + 32), *out = text;
    while (*message)
        if (message[0] == ':' && message[1] == '@' && message[2] >= '0' && message[2] <= '9') {
            out += sprintf(out, ":%d", line_number(message[2] - '0'));
            message += 3;
        } else
            *out++ = *message++;
    *out = 0;
    return text;
}

/* A parser for a text, with its first token loaded. */
MAVIS_INLINE struct sym *sym_raw(const char *text)
{
    struct sym *sym = (struct sym *)calloc(1, sizeof *sym);
    sym->filename = T("test.cfg");
    sym->in = sym->tin = strdup(text);
    sym->len = sym->tlen = (int)strlen(text);
    return sym;
}

MAVIS_INLINE struct sym *sym_of(const char *text)
{
    struct sym *sym = sym_raw(text);
    sym_init(sym);
    return sym;
}

MAVIS_INLINE void sym_done(struct sym *sym)
{
    free(sym->in);
    free(sym);
}

/* Runs a statement that ends with parse_error() on `sym`, and gets the message. Nothing else may go to stderr. */
#define PARSE_ERROR_OF(sym, statement, text) \
    do {                                     \
        capture_begin();                     \
        (sym)->env_valid = 1;                \
        if (!setjmp((sym)->env)) {           \
            statement;                       \
            free(capture_end());             \
            text = strdup("no error");       \
        } else {                             \
            text = capture_end();            \
        }                                    \
    } while (0)

#define CHECK_PARSE_ERROR(config, statement, part)  \
    do {                                            \
        char *volatile parse_error_text = NULL;     \
        struct sym *volatile sym = sym_of(config);  \
        PARSE_ERROR_OF(sym, statement, parse_error_text); \
        CHECK_HAS(parse_error_text, with_lines(part)); \
        free(parse_error_text);                     \
        sym_done(sym);                              \
    } while (0)

#endif
