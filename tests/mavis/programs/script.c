/* The script language, in modules that do nothing but run scripts. */
#include "chain.h"
#include <mavis/debug.h>

/* The answer's COMMENT after a `script in`; static memory. */
static const char *script(const char *text)
{
    static char result[4096];
    char config[8192];
    snprintf(config, sizeof config, "module scr = bare { script in = { %s } }", text);
    mavis_ctx *chain = chain_of(NULL, config);
    av_ctx *ac = query_of("joe@example.com");
    av_set(ac, AV_A_REALM, T("Default"));
    av_set(ac, AV_A_HOME, T("Default"));
    av_set(ac, AV_A_PATH, T("two\nlines"));
    CHECK_INT(mavis_send(chain, &ac), MAVIS_FINAL);
    snprintf(result, sizeof result, "%s", av_get(ac, AV_A_COMMENT) ? av_get(ac, AV_A_COMMENT) : "-");
    av_free(ac);
    mavis_drop(chain);
    return result;
}

/* Whether the condition is true. */
static int condition(const char *text)
{
    char statement[4096];
    snprintf(statement, sizeof statement, "if %s set COMMENT = yes_ else set COMMENT = no_", text);
    const char *result = script(statement);
    return !strcmp(result, "yes_") ? 1 : !strcmp(result, "no_") ? 0 : -1;
}

#define TRUE(text) CHECK_INT(condition(text), 1)
#define FALSE(text) CHECK_INT(condition(text), 0)

static void comparisons(void)
{
    TRUE("REALM == Default");
    TRUE("(REALM == Default)");
    FALSE("REALM == default_");
    FALSE("REALM != Default");
    TRUE("REALM != other");
    TRUE("realm == \"Default\"");
    TRUE("$REALM == Default");
    TRUE("REALM == \"$HOME\"");
    TRUE("REALM == $HOME");
    FALSE("REALM == $USER");
    TRUE("REALM == home"); /* a word of the language stands for its attribute */
    FALSE("REALM == \"home\"");
    FALSE("REALM == \"$nosuch\"");
    /* Not set. */
    FALSE("CLASS == x");
    TRUE("CLASS != x");
    FALSE("CLASS == $VHOST");
    TRUE("CLASS != $VHOST");
    FALSE("CLASS =~ /x/");
    FALSE("REALM == $CLASS");
    TRUE("defined REALM");
    FALSE("defined CLASS");
    TRUE("undef CLASS");
    FALSE("undef REALM");
    TRUE("(defined(REALM))");
    TRUE("defined(REALM)");
}

static void logic(void)
{
    TRUE("(REALM == Default && HOME == Default)");
    FALSE("(REALM == Default && HOME == other)");
    TRUE("(REALM == other || HOME == Default)");
    FALSE("(REALM == other || HOME == other)");
    TRUE("(!(REALM == other))");
    TRUE("(! REALM == other)");
    FALSE("(! (defined REALM))");
    /* ! before && before || */
    TRUE("(defined REALM || defined REALM && defined CLASS)");
    TRUE("(defined CLASS && defined CLASS || defined REALM)");
    FALSE("((defined REALM || defined REALM) && defined CLASS)");
    FALSE("(defined CLASS && (defined CLASS || defined REALM))");
    TRUE("(!defined CLASS && defined REALM)");
    FALSE("(!(defined CLASS || defined REALM))");
    TRUE("(!(!(defined REALM)))");
    TRUE("(REALM == Default && USER =~ /^joe@/ && defined HOME && !(CLASS == x) && (REALM == x || REALM == y || HOME == Default))");
}

static void expressions(void)
{
    TRUE("USER =~ /^joe@/");
    FALSE("USER =~ /^kim@/");
    TRUE("USER !~ /^kim@/");
    TRUE("(USER =~ /EXAMPLE\\\\.COM$/ || USER =~ /example\\\\.com$/)");
    TRUE("PATH =~ /^lines$/"); /* ^ and $ are about lines */
    TRUE("USER =~ \"^joe@[a-z.]+$\"");
    FALSE("USER =~ \"^kim\"");
    TRUE("(USER =~ \"(joe|kim)@\" && defined REALM)");
    TRUE("USER !~ \"^kim\"");
    /* Case matters unless the text says otherwise, in both kinds of expression. */
    FALSE("USER =~ /^JOE@/");
    FALSE("USER =~ \"^JOE@\"");
    TRUE("regex-match-case = no USER =~ /^JOE@/");
    TRUE("regex-match-case = no USER =~ \"^JOE@\"");
    FALSE("USER =~ /^JOE@/");
    CHECK_TEXT(script("if (USER =~ /^(\\w+)@(\\S+)$/) set COMMENT = \"$2:$1:$0:$3:$x\\\\$1\\\\\""),
               "example.com:joe:joe@example.com::$x$1");
}

static void statements(void)
{
    CHECK_TEXT(script("set COMMENT = text"), "text");
    CHECK_TEXT(script("set COMMENT = \"two words\""), "two words");
    CHECK_TEXT(script("set comment = user"), "user");
    CHECK_TEXT(script("set COMMENT = a unset COMMENT"), "-");
    CHECK_TEXT(script("set COMMENT = MiXed toupper COMMENT"), "MIXED");
    CHECK_TEXT(script("set COMMENT = MiXed tolower COMMENT"), "mixed");
    CHECK_TEXT(script("toupper CLASS tolower CLASS unset CLASS set COMMENT = ok"), "ok");
    CHECK_TEXT(script("set COMMENT = a return set COMMENT = b"), "a");
    CHECK_TEXT(script("set COMMENT = a continue set COMMENT = b"), "a");
    CHECK_TEXT(script("set COMMENT = a skip set COMMENT = b"), "a");
    CHECK_TEXT(script("if defined USER { set COMMENT = a set REALM = b } else { set COMMENT = c } set HOME = x"), "a");
    CHECK_TEXT(script("if undef USER { set COMMENT = a } else if REALM == Default { set COMMENT = b } else { set COMMENT = c }"), "b");
    CHECK_TEXT(script("if undef USER { set COMMENT = a } else if REALM == Other { set COMMENT = b } else { set COMMENT = c }"), "c");
    CHECK_TEXT(script("if defined USER { if REALM == Default { set COMMENT = a return } set COMMENT = b } set COMMENT = c"), "a");
    CHECK_TEXT(script("if defined USER { set COMMENT = a } set COMMENT = b"), "b");
    CHECK_TEXT(script("if defined USER if undef USER set COMMENT = a else set COMMENT = b"), "b");
    /* Groups of the last match of an expression between slashes. */
    CHECK_TEXT(script("eval USER =~ /(.)o/ set COMMENT = \"<$1>\""), "<j>");
    CHECK_TEXT(script("set COMMENT = \"<$0$1>\""), "<>");
    CHECK_TEXT(script("if USER =~ /(.)o/ set REALM = x if (REALM =~ \"x\") set COMMENT = \"<$1>\""), "<j>");
    CHECK_TEXT(script("if USER =~ /(z)?(.)oe/ set COMMENT = \"<$1$2$9>\""), "<j>");
    CHECK_TEXT(script("set COMMENT = \"a$ b$- $\""), "a$ b$- $");
    if (!original) {
        /* The matched attribute may change before its groups are used. */
        CHECK_TEXT(script("if USER =~ /^(\\w+)@(\\S+)$/ { set USER = \"$1\" set COMMENT = \"$2\" }"), "example.com");
        /* A block as a statement runs its statements. */
        CHECK_TEXT(script("{ set COMMENT = a set COMMENT = b } set HOME = c"), "b");
        CHECK_TEXT(script("{ } set COMMENT = c"), "c");
        CHECK_TEXT(script("eval (USER =~ /(.)o/ && defined REALM) set COMMENT = \"<$1>\""), "<j>");
        CHECK_TEXT(script("eval REALM == $HOME set COMMENT = a"), "a");
    }
}

static void verdicts(void)
{
    mavis_ctx *chain = chain_of(NULL, "module top = echo { default = ACK script in { if USER == skipped skip if USER == returned return"
                                      "    if USER == continued continue }"
                                      " script interim { set CUSTOM_0 = \"interim\" if USER == iskip skip }"
                                      " script out { set CUSTOM_1 = \"out\" } script out { set CUSTOM_2 = \"more\" } unset EMAIL }"
                                      "module below = echo { default = NAK }");
    static const struct {
        const char *user, *result, *interim, *out, *email;
    } cases[] = { { "joe", "ACK", "interim", "out", NULL },         { "continued", "ACK", "interim", "out", NULL },
                  { "returned", "NFD", NULL, "out", "address" },     { "skipped", "NAK", NULL, NULL, "address" },
                  { "iskip", "ACK", "interim", NULL, "address" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        av_ctx *ac = query_of(cases[i].user);
        av_set(ac, AV_A_EMAIL, T("address"));
        CHECK_INT(mavis_send(chain, &ac), MAVIS_FINAL);
        CHECK_TEXT(av_get(ac, AV_A_RESULT), cases[i].result);
        CHECK_TEXT(av_get(ac, AV_A_CUSTOM_0), cases[i].interim);
        CHECK_TEXT(av_get(ac, AV_A_CUSTOM_1), cases[i].out);
        CHECK_TEXT(av_get(ac, AV_A_CUSTOM_2), cases[i].out ? "more" : NULL);
        CHECK_TEXT(av_get(ac, AV_A_EMAIL), cases[i].email);
        av_free(ac);
    }
    mavis_drop(chain);

    /* `self` is the module's own name. */
    chain = chain_of(NULL, "module other = echo { default = ACK script out { if IDENTITY_SOURCE == $CUSTOM_3 set COMMENT = mine } }");
    av_ctx *ac = query_of("joe");
    av_set(ac, AV_A_CUSTOM_3, T("self"));
    CHECK_INT(mavis_send(chain, &ac), MAVIS_FINAL);
    CHECK_TEXT(av_get(ac, AV_A_COMMENT), "mine");
    av_free(ac);
    mavis_drop(chain);
}

static void direct(void)
{
    mavis_ctx mcx;
    memset(&mcx, 0, sizeof mcx);
    mcx.identity_source_name = T("scr");
    av_ctx *ac = query_of("joe");
    static const struct {
        const char *text;
        int verdict;
    } cases[] = { { "script in { continue }", S_continue }, { "script in { return }", S_return }, { "script in { skip }", S_skip },
                  { "script in { }", S_unknown },            { "script in = { set REALM = x }", S_unknown },
                  { "script in { if USER == joe { skip } else return }", S_skip } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sym *sym = sym_of(cases[i].text);
        mavis_script_parse(&mcx, NULL, sym);
        CHECK_INT(sym->code, S_eof);
        sym_done(sym);
        CHECK_INT(mavis_script_eval(&mcx, ac, mcx.script_in), cases[i].verdict);
        mavis_script_drop(&mcx.script_in);
        CHECK(!mcx.script_in);
    }
    mavis_script_drop(&mcx.script_in);
    CHECK(!mcx.script_out && !mcx.script_interim);
    av_free(ac);
}

static void parse_script(struct sym *sym)
{
    mavis_ctx mcx;
    memset(&mcx, 0, sizeof mcx);
    mavis_script_parse(&mcx, NULL, sym);
}

static void in_parentheses(void *config)
{
    struct sym *sym = sym_of((char *)config);
    sym->env_valid = 1;
    if (!setjmp(sym->env)) {
        parse_script(sym);
        check_failures++;
    }
}

static void mistakes(void)
{
    CHECK_PARSE_ERROR("script sideways { }", parse_script(sym), "but got 'sideways'");
    CHECK_PARSE_ERROR("script in { bogus }", parse_script(sym), "but got 'bogus'");
    CHECK_PARSE_ERROR("script in { set NOSUCH = x }", parse_script(sym), "'NOSUCH' is not a recognized attribute");
    CHECK_PARSE_ERROR("script in { if NOSUCH == x return }", parse_script(sym), "'NOSUCH' is not a recognized attribute");
    CHECK_PARSE_ERROR("script in { if USER == module return }", parse_script(sym), "'module' is not a recognized attribute");
    CHECK_PARSE_ERROR("script in { if USER =~ /(/ return }", parse_script(sym), "In PCRE2 expression /(/ at offset ");
    CHECK_PARSE_ERROR("script in { if USER =~ \"(\" return }", parse_script(sym), "In regular expression '('");
    /* Within parentheses the original always exits. */
    char *text;
    int status = in_child(in_parentheses, T("script in { if (USER == x { return } }"), &text);
    CHECK(status == 78 || status == RETURNED);
    CHECK_HAS(text, "Got '{' -- did you omit a ')' somewhere?");
    status = in_child(in_parentheses, T("script in { if (USER =~/x/) return }"), &text);
    CHECK(status == 78 || status == RETURNED);
    CHECK_HAS(text, "[syslog 67] Error ");
}

static void traces(void)
{
    common_data.debug = DEBUG_ACL_FLAG;
    capture_begin();
    script("if (USER =~ /^(\\w+)@(\\S+)$/) {\n set USER = \"joe\"\n toupper USER\n unset TIMESTAMP\n}\n"
           "if (defined REALM && defined HOME)\n continue");
    char *text = capture_end();
    common_data.debug = 0;
    CHECK_HAS(text, "scr/line ");
    CHECK_HAS(text, "USER <pcre-regex> '^(\\w+)@(\\S+)$' => true\n");
    CHECK_HAS(text, ": [set] USER = \"joe\"\n");
    CHECK_HAS(text, ": [toupper]\n");
    CHECK_HAS(text, ": [unset] TIMESTAMP\n");
    CHECK_HAS(text, "REALM defined '' => true\n");
    CHECK_HAS(text, ": [&&] => true\n");
    CHECK_HAS(text, ": [continue]\n");
    free(text);
}

int main(void)
{
    init_common_data();
    comparisons();
    logic();
    expressions();
    statements();
    verdicts();
    direct();
    mistakes();
    traces();
    return check_result();
}
