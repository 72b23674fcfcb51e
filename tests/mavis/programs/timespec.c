/* Time specifications, and whether they match. */
#include "check.h"

#define BIT(n) (1ULL << (n))

/* The bits from a to b. */
static uint64_t span(int a, int b)
{
    uint64_t bits = 0;
    for (int i = a; i <= b; i++)
        bits |= BIT(i);
    return bits;
}

static struct mavis_tm cron(const char *text)
{
    struct mavis_tm tm;
    char *copy = strdup(text);
    memset(&tm, 0, sizeof tm);
    CHECK_INT(parse_cron(&tm, copy), 0);
    free(copy);
    return tm;
}

static void crons(void)
{
    struct mavis_tm tm = cron("* * * * *");
    CHECK_INT(tm.min & span(0, 59), span(0, 59));
    CHECK_INT(tm.hour & span(0, 23), span(0, 23));
    CHECK_INT(tm.wday & span(0, 6), span(0, 6));
    CHECK_INT(tm.mday & span(1, 31), span(1, 31));
    CHECK_INT(tm.mon & span(0, 11), span(0, 11));
    tm = cron("0 8-17 1,15 * mon-fri");
    CHECK_INT(tm.min, BIT(0));
    CHECK_INT(tm.hour, span(8, 17));
    CHECK_INT(tm.mday, BIT(1) | BIT(15));
    CHECK_INT(tm.wday, span(1, 5));
    tm = cron("5,10-12,59 0 31 jan,Mar-APR 0");
    CHECK_INT(tm.min, BIT(5) | span(10, 12) | BIT(59));
    CHECK_INT(tm.hour, BIT(0));
    CHECK_INT(tm.mday, BIT(31));
    CHECK_INT(tm.mon, BIT(0) | span(2, 3));
    CHECK_INT(tm.wday, BIT(0));
    /* 0 and 7 are both Sunday. */
    CHECK_INT(cron("0 0 1 * 7").wday, BIT(0));
    CHECK_INT(cron("0 0 1 2 *").mon, original ? BIT(2) : BIT(1)); /* it takes 1 for February */
    /* Names wrap round. */
    CHECK_INT(cron("0 0 1 * fri-mon").wday, BIT(5) | BIT(6) | BIT(0) | BIT(1));
    CHECK_INT(cron("30-20 * * * *").min, 0);
    /* Missing fields are empty. */
    tm = cron("1 2");
    CHECK_INT(tm.min, BIT(1));
    CHECK_INT(tm.hour, BIT(2));
    CHECK_INT(tm.mday, 0);
    char bad[] = "1 ? * * *";
    CHECK_INT(parse_cron(&tm, bad), 1);
}

static struct tm at(int hour, int min, int wday)
{
    struct tm tm;
    memset(&tm, 0, sizeof tm);
    tm.tm_year = 124;
    tm.tm_mon = 6;
    tm.tm_mday = 7 + wday; /* 2024-07-07 is a Sunday */
    tm.tm_hour = hour;
    tm.tm_min = min;
    tm.tm_isdst = -1;
    return tm;
}

static rb_tree_t *table;

/* Whether it matches on that day of the week at that time. */
static const char *holds(const char *name, int hour, int min, int wday)
{
    struct tm tm = at(hour, min, wday);
    struct mavis_timespec *ts = find_timespec(table, T(name));
    static char *part;
    CHECK(ts != NULL);
    if (!ts)
        return NULL;
    io_now.tv_sec = mktime(&tm);
    io_now.tv_usec = 0;
    ts->valid_until = 0;
    part = NULL;
    int matched = eval_timespec(ts, &part);
    CHECK_INT(!!matched, !!part);
    return part;
}

static void tables(void)
{
    struct sym *sym = sym_of("timespec = work { \"* 9-17 * * 1-5\" } timespec lunch { \"0-30 12 * * *\" \"15 13 * * *\" }"
                             "timespec = work { \"0 20 * * 6\" } timespec = uucp { \"Mo0900-0959\" } timespec = any { Any }"
                             "timespec = weekend { Wd } timespec = week { Wk } timespec = never { }");
    table = init_timespec();
    CHECK(table != NULL);
    while (sym->code == S_timespec)
        parse_timespec(table, sym);
    CHECK_INT(sym->code, S_eof);
    sym_done(sym);
    CHECK(!find_timespec(table, T("none")));
    CHECK_TEXT(find_timespec(table, T("work"))->name, "work");

    CHECK_TEXT(holds("work", 9, 0, 1), "* 9-17 * * 1-5");
    CHECK_TEXT(holds("work", 17, 59, 5), "* 9-17 * * 1-5");
    CHECK_TEXT(holds("work", 18, 0, 5), NULL);
    CHECK_TEXT(holds("work", 10, 0, 0), NULL);
    CHECK_TEXT(holds("work", 20, 0, 6), "0 20 * * 6");
    CHECK_TEXT(holds("lunch", 12, 30, 3), "0-30 12 * * *");
    CHECK_TEXT(holds("lunch", 12, 31, 3), NULL);
    CHECK_TEXT(holds("lunch", 13, 15, 3), "15 13 * * *");
    CHECK_TEXT(holds("uucp", 9, 30, 1), "Mo0900-0959");
    CHECK_TEXT(holds("uucp", 9, 30, 2), NULL);
    CHECK_TEXT(holds("uucp", 10, 0, 1), NULL);
    CHECK_TEXT(holds("any", 3, 3, 3), "Any");
    CHECK_TEXT(holds("weekend", 3, 3, 6), "Wd");
    CHECK_TEXT(holds("weekend", 3, 3, 0), "Wd");
    CHECK_TEXT(holds("weekend", 3, 3, 1), NULL);
    CHECK_TEXT(holds("week", 3, 3, 1), "Wk");
    CHECK_TEXT(holds("week", 3, 3, 0), NULL);
    CHECK_TEXT(holds("never", 3, 3, 0), NULL);
    if (!original) {
        struct sym *more = sym_of("timespec = long { \"Wk0855-2305\" } timespec = both { \"Mo0900-0959,Tu\" }");
        while (more->code == S_timespec)
            parse_timespec(table, more);
        sym_done(more);
        CHECK(holds("long", 8, 55, 1) && holds("long", 8, 59, 1) && holds("long", 12, 0, 1) && holds("long", 23, 5, 1));
        CHECK(!holds("long", 8, 54, 1) && !holds("long", 23, 6, 1) && !holds("long", 12, 0, 0));
        CHECK(holds("both", 9, 1, 1) && holds("both", 12, 0, 2) && !holds("both", 12, 0, 1));
    }

    /* The result is cached until the minute is over. */
    struct tm tm = at(10, 0, 1);
    struct mavis_timespec *ts = find_timespec(table, T("work"));
    char *part;
    io_now.tv_sec = mktime(&tm);
    ts->valid_until = 0;
    CHECK(eval_timespec(ts, &part));
    CHECK(ts->valid_until >= io_now.tv_sec && ts->valid_until <= io_now.tv_sec + 60);
    CHECK(eval_timespec(ts, NULL));
}

int main(void)
{
    setenv("TZ", "UTC", 1);
    tzset();
    init_common_data();
    crons();
    tables();
    return check_result();
}
