/* Memory that cannot run out, and pools. */
#include "check.h"

static void too_much(void *arg)
{
    if (!arg)
        XXcalloc((size_t)-1 / 4, 2, T("file.c"), 17);
    else
        XXrealloc(malloc(1), (size_t)-1 / 2, T("file.c"), 18);
}

static void basics(void)
{
    char *p = (char *)Xcalloc(4, 100), *text;
    for (int i = 0; i < 400; i++)
        CHECK_INT(p[i], 0);
    strcpy(p, "kept");
    p = (char *)Xrealloc(p, 100000);
    CHECK_TEXT(p, "kept");
    free(p);
    p = (char *)Xrealloc(NULL, 10);
    CHECK(p != NULL);
    Xfree(&p);
    CHECK(!p);
    Xfree(&p);
    p = Xstrdup("text");
    CHECK_TEXT(p, "text");
    free(p);
    CHECK_INT(in_child(too_much, NULL, &text), 71);
    CHECK_HAS(text, "calloc (file.c:17): ");
    CHECK_INT(in_child(too_much, &p, &text), 71);
    CHECK_HAS(text, "realloc (file.c:18): ");
}

static int freed;
static void *freed_what[4];
static void note(void *p)
{
    if (freed < 4)
        freed_what[freed] = p;
    freed++;
}

static void pool(enum mem_type type)
{
    int one, two;
    mem_t *m = mem_create(type);
    CHECK(type == M_STD ? !m : !!m);
    char *p[300];
    for (int i = 0; i < 300; i++) {
        size_t size = (size_t)(i * i % 3000 + 1);
        p[i] = (char *)mem_alloc(m, size);
        for (size_t k = 0; k < size; k++)
            if (p[i][k]) {
                CHECK(!"zeroed");
                break;
            }
        memset(p[i], i % 255 + 1, size);
        CHECK_INT((uintptr_t)p[i] % sizeof(void *), 0);
    }
    for (int i = 0; i < 300; i++) {
        size_t size = (size_t)(i * i % 3000 + 1);
        CHECK_INT((unsigned char)p[i][0], i % 255 + 1);
        CHECK_INT((unsigned char)p[i][size - 1], i % 255 + 1);
    }
    for (int i = 0; i < 300; i++)
        if (i % 2) {
            CHECK(!mem_free(m, &p[i]));
            CHECK(!p[i]);
        }
    char *text = mem_strdup(m, T("a text"));
    CHECK_TEXT(text, "a text");
    char *part = mem_strndup(m, (unsigned char *)T("a text"), 3);
    CHECK_TEXT(part, "a t");
    char *binary = mem_strndup(m, (unsigned char *)T("ab\0cd"), 5);
    CHECK(!memcmp(binary, "ab\0cd", 6));
    char *copy = (char *)mem_copy(m, T("ab\0cd"), 5);
    CHECK(!memcmp(copy, "ab\0cd", 6));
    if (type != M_POOL || !original) {
        text = (char *)mem_realloc(m, text, 5000);
        CHECK_TEXT(text, "a text");
        char *fresh = (char *)mem_realloc(m, NULL, 20);
        CHECK(fresh != NULL);
        CHECK(!mem_free(m, &fresh));
    }

    char *mine = strdup("attached");
    if (type == M_STD) {
        CHECK(!mem_free(m, &text));
        mem_free(m, &part);
        mem_free(m, &binary);
        mem_free(m, &copy);
        for (int i = 0; i < 300; i++)
            if (p[i])
                mem_free(m, &p[i]);
        CHECK(!mem_destroy(m));
        free(mine);
        return;
    }
    CHECK(mem_attach(m, mine) == mine);
    CHECK(mem_detach(m, mine) == mine);
    free(mine);
    mine = strdup("attached again");
    CHECK(mem_attach(m, mine) == mine);
    CHECK(!mem_detach(m, &one));
    freed = 0;
    mem_add_free(m, (void *)note, &one);
    mem_add_free(m, (void *)note, &two);
    CHECK_INT(freed, 0);
    CHECK(!mem_destroy(m));
    CHECK_INT(freed, 2);
    CHECK((freed_what[0] == &one && freed_what[1] == &two) || (freed_what[0] == &two && freed_what[1] == &one));
}

int main(void)
{
    init_common_data();
    basics();
    pool(M_STD);
    pool(M_LIST);
    pool(M_POOL);
    return check_result();
}
