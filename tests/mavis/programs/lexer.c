/* Tokens: words, quotes, comments, expressions, line numbers. */
#include "tokens.h"

/* A NUL, a byte 255 and the word for it end the file. */
static void ends(void *arg)
{
    (void)arg;
    struct sym *sym = sym_raw("a b c");
    sym->in[3] = 0;
    sym_init(sym);
    TOKEN(sym, S_string, "a");
    TOKEN(sym, S_string, "b");
    TOKEN(sym, S_eof, "");
    sym_done(sym);
    sym = sym_of("a \377 b");
    TOKEN(sym, S_string, "a");
    TOKEN(sym, S_eof, "");
    sym_done(sym);
    /* Inside a string it ends the text. */
    sym = sym_of("\"a\\000b\" c");
    TOKEN(sym, S_string, "a");
    TOKEN(sym, S_string, "c");
    sym_done(sym);
    sym = sym_of("<end-of-file> b");
    CHECK_INT(sym->code, S_eof);
    sym_done(sym);
}

static void words(void)
{
    struct sym *sym = sym_of("user joe a#b # comment\n#whole line\nx=y,{}!()[]~z /slash/ a;b:c \"q\"");
    CHECK_INT(sym->line, 0);
    TOKEN(sym, S_user, "user");
    TOKEN(sym, S_string, "joe");
    TOKEN(sym, S_string, "a#b");
    TOKEN(sym, S_string, "x");
    TOKEN(sym, S_equal, "=");
    TOKEN(sym, S_string, "y");
    TOKEN(sym, S_comma, ",");
    TOKEN(sym, S_openbra, "{");
    TOKEN(sym, S_closebra, "}");
    TOKEN(sym, S_exclmark, "!");
    TOKEN(sym, S_leftbra, "(");
    TOKEN(sym, S_rightbra, ")");
    TOKEN(sym, S_leftsquarebra, "[");
    TOKEN(sym, S_rightsquarebra, "]");
    TOKEN(sym, S_string, "~z");
    TOKEN(sym, S_string, "/slash/");
    TOKEN(sym, S_string, "a;b:c");
    CHECK_INT(sym->quoted, 1);
    TOKEN(sym, S_string, "q");
    TOKEN(sym, S_eof, "");
    TOKEN(sym, S_eof, "");
    sym_done(sym);

    /* A module's own word may be a token; its text decides, unless it is quoted. */
    sym = sym_of("delay \"delay\" colour");
    CHECK_INT(sym->quoted, 0);
    TOKEN(sym, S_delay, "delay");
    CHECK_INT(sym->quoted, 1);
    TOKEN(sym, S_string, "delay");
    CHECK_INT(sym->quoted, 0);
    TOKEN(sym, S_string, "colour");
    sym_done(sym);

    sym = sym_of("");
    TOKEN(sym, S_eof, "");
    sym_done(sym);

    sym = sym_of("a && b || c & d | e ~ f");
    TOKEN(sym, S_string, "a");
    CHECK_INT(sym->code, S_and);
    sym_get(sym);
    TOKEN(sym, S_string, "b");
    CHECK_INT(sym->code, S_or);
    sym_get(sym);
    TOKEN(sym, S_string, "c");
    TOKEN(sym, S_string, "d");
    TOKEN(sym, S_string, "e");
    TOKEN(sym, S_tilde, "~");
    TOKEN(sym, S_string, "f");
    sym_done(sym);

    /* Characters that end a word. */
    sym = sym_of("a=b{c}d(e)f[g]h!i,j|k&l \"x\"y'z");
    static const char *const texts[] = { "a", "=", "b", "{", "c", "}", "d", "(", "e", ")", "f", "[",
                                         "g", "]", "h", "!", "i", ",", "j", "k", "l", "x", "y'z" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        CHECK_TEXT(sym->buf, texts[i]);
        sym_get(sym);
    }
    sym_done(sym);

    CHECK_INT(in_child(ends, NULL, NULL), RETURNED);
    sym = sym_of("Gr\303\274\303\237e \342\202\254 \360\237\230\200 \"\303\274\"");
    TOKEN(sym, S_string, "Gr\303\274\303\237e");
    TOKEN(sym, S_string, "\342\202\254");
    TOKEN(sym, S_string, "\360\237\230\200");
    TOKEN(sym, S_string, "\303\274");
    sym_done(sym);
}

static void table(void)
{
    CHECK_INT(sizeof codestring, 542 * sizeof(str_t));
    for (int i = 0; i < 542; i++) {
        CHECK_INT(codestring[i].len, codestring[i].txt ? strlen(codestring[i].txt) : 0);
        if (i && i < 541)
            CHECK_INT(keycode(codestring[i].txt), i);
    }
    CHECK_INT(keycode(codestring[0].txt), S_string);
    CHECK_INT(keycode(T("User")), S_string);
    CHECK_INT(keycode(T("")), S_string);
    CHECK_INT(keycode(T("no such word")), S_string);
    CHECK_INT(keycode(T("module")), S_module);
    CHECK_TEXT(codestring[S_or].txt, "||");
}

static void quotes(void)
{
    struct sym *sym = sym_of("\"a b\" 'c \"d\"' \"\\a\\b\\e\\t\\n\\v\\f\\r\\\\\\\"\\'\" '\\101\\7x\\18' \"user\" \"\" x\"y\"");
    CHECK_INT(sym->quoted, 1);
    TOKEN(sym, S_string, "a b");
    TOKEN(sym, S_string, "c \"d\"");
    TOKEN(sym, S_string, "\a\b\033\t\n\v\f\r\\\"'");
    TOKEN(sym, S_string, "A\007x\0018");
    TOKEN(sym, S_string, "user");
    CHECK_INT(sym->quoted, 1);
    TOKEN(sym, S_string, "");
    CHECK_INT(sym->quoted, 0);
    TOKEN(sym, S_string, "x\"y\"");
    sym_done(sym);

    sym = sym_of("\"one\ntwo\" x");
    TOKEN(sym, S_string, "one\ntwo");
    sym_done(sym);

    /* Unknown escapes are dropped, and reported unless that is disabled. */
    capture_begin();
    sym = sym_of("\"a\\xb\"");
    char *text = capture_end();
    TOKEN(sym, S_string, "ab");
    CHECK_HAS(text, "Unknown escape sequence '\\x'");
    free(text);
    sym_done(sym);
    sym = sym_raw("a \"a\\xb\"");
    sym_init(sym);
    sym->nowarn = 1;
    capture_begin();
    sym_get(sym);
    text = capture_end();
    CHECK_TEXT(text, "");
    CHECK_TEXT(sym->buf, "ab");
    free(text);
    sym_done(sym);

    sym = sym_raw("\"a\\b\" x");
    sym->noescape = 1;
    sym_init(sym);
    TOKEN(sym, S_string, "a\\b");
    sym_done(sym);

    setenv("MAVIS_TEST_VALUE", "from the environment", 1);
    unsetenv("MAVIS_TEST_NONE");
    sym = sym_of("\"<${MAVIS_TEST_VALUE}>\" ${MAVIS_TEST_VALUE} '${MAVIS_TEST_NONE} $MAVIS_TEST_VALUE'");
    TOKEN(sym, S_string, "<from the environment>");
    CHECK_TEXT(sym->buf, "$");
    while (sym->code != S_eof && !sym->quoted)
        sym_get(sym);
    TOKEN(sym, S_string, "${MAVIS_TEST_NONE} $MAVIS_TEST_VALUE");
    sym_done(sym);

    CHECK_PARSE_ERROR("a \"b", sym_get(sym), "EOF unexpected");
}

static void expressions(void)
{
    struct sym *sym = sym_raw("/a b/ /a\\/b/ /\\./ /\\\\./ /\\\\\\\\/ x/y/ end");
    sym->flag_parse_pcre = 1;
    sym_init(sym);
    TOKEN(sym, S_slash, "a b");
    TOKEN(sym, S_slash, "a/b");
    TOKEN(sym, S_slash, "\\.");
    TOKEN(sym, S_slash, "\\.");
    TOKEN(sym, S_slash, "\\\\");
    TOKEN(sym, S_string, "x/y/");
    TOKEN(sym, S_string, "end");
    sym_done(sym);
    CHECK_PARSE_ERROR("a /b", (sym->flag_parse_pcre = 1, sym_get(sym)), "EOF unexpected");
    CHECK_PARSE_ERROR("a /b\n/", (sym->flag_parse_pcre = 1, sym_get(sym)), "EOL unexpected");
    if (!original) {
        sym = sym_raw("/\303\274x/");
        sym->flag_parse_pcre = 1;
        sym_init(sym);
        TOKEN(sym, S_slash, "\303\274x");
        sym_done(sym);
    }
}

static void long_tokens(void)
{
    char *text = (char *)malloc(140000);
    for (int quoted = 0; quoted < 2; quoted++)
        for (int length = 65530; length <= 65536; length++) {
            struct sym *volatile sym;
            char *volatile message = NULL;
            int n = length;
            memset(text, 'a', 140000);
            text[0] = quoted ? '"' : 'x';
            text[1] = ' ';
            memcpy(text, "first ", 6);
            if (quoted) {
                text[6] = '"';
                text[7 + n] = '"';
                text[8 + n] = 0;
            } else
                text[6 + n] = 0;
            sym = sym_of(text);
            if (length <= 65534) {
                sym_get(sym);
                CHECK_INT(strlen(sym->buf), length);
                sym_get(sym);
                CHECK_INT(sym->code, S_eof);
            } else if (!original) { /* the original crashes while it formats the message */
                PARSE_ERROR_OF(sym, sym_get(sym), message);
                CHECK_HAS(message, "Line too long");
                free(message);
            }
            sym_done(sym);
        }
    free(text);
}

static void copies(void)
{
    struct sym *sym = sym_of("a\nuser\n\"b c\"\nd"), *copy = (struct sym *)malloc(sizeof *copy);
    CHECK_INT(sym_peek(sym), S_user);
    CHECK_TEXT(sym->buf, "a");
    *copy = *sym;
    sym_get(copy);
    TOKEN(copy, S_user, "user");
    TOKEN(copy, S_string, "b c");
    TOKEN(copy, S_string, "d");
    TOKEN(copy, S_eof, "");
    TOKEN(sym, S_string, "a");
    TOKEN(sym, S_user, "user");
    CHECK_INT(sym_peek(sym), S_string);
    TOKEN(sym, S_string, "b c");
    CHECK_INT(sym->line, 3); /* counted from 0, however it is reported */
    CHECK_INT(sym_peek(sym), S_eof);
    TOKEN(sym, S_string, "d");
    sym_done(sym);
    free(copy);
}

static void case_flags(void)
{
    init_common_data();
    CHECK_INT(common_data.regex_pcre_flags, 0x00080008);
    CHECK_INT(common_data.regex_posix_flags, 2);
    struct sym *sym = sym_of("a regex-match-case = yes b regex-match-case = no c { regex-match-case = yes d } e");
    TOKEN(sym, S_string, "a");
    CHECK_INT(common_data.regex_pcre_flags & 8, 0);
    CHECK_INT(common_data.regex_posix_flags, 0);
    TOKEN(sym, S_string, "b");
    CHECK_INT(common_data.regex_pcre_flags, 0x00080008);
    CHECK_INT(common_data.regex_posix_flags, 2);
    TOKEN(sym, S_string, "c");
    TOKEN(sym, S_openbra, "{");
    CHECK_INT(common_data.regex_posix_flags, 0);
    TOKEN(sym, S_string, "d");
    TOKEN(sym, S_closebra, "}");
    CHECK_INT(common_data.regex_pcre_flags, 0x00080008);
    CHECK_INT(common_data.regex_posix_flags, 2);
    sym_done(sym);
}

/* Case matters from the first word on, unless the text says otherwise; looking ahead changes nothing. */
static void case_counts_by_default(void)
{
    init_common_data();
    struct sym *sym = sym_of("a { b } c { regex-match-case = no x { d { e } f } g } h");
    TOKEN(sym, S_string, "a");
    if (!original) {
        CHECK_INT(common_data.regex_pcre_flags, 0);
        CHECK_INT(common_data.regex_posix_flags, 0);
    }
    TOKEN(sym, S_openbra, "{");
    TOKEN(sym, S_string, "b");
    TOKEN(sym, S_closebra, "}");
    CHECK_INT(common_data.regex_pcre_flags, 0);
    CHECK_INT(common_data.regex_posix_flags, 0);
    TOKEN(sym, S_string, "c");
    TOKEN(sym, S_openbra, "{");
    TOKEN(sym, S_string, "x");
    TOKEN(sym, S_openbra, "{");
    CHECK_INT(common_data.regex_pcre_flags, 0x00080008);
    CHECK_INT(common_data.regex_posix_flags, 2);
    TOKEN(sym, S_string, "d");
    TOKEN(sym, S_openbra, "{");
    if (!original)
        CHECK_INT(sym_peek(sym), S_closebra);
    TOKEN(sym, S_string, "e");
    TOKEN(sym, S_closebra, "}");
    if (!original)
        CHECK_INT(sym_peek(sym), S_closebra);
    TOKEN(sym, S_string, "f");
    TOKEN(sym, S_closebra, "}");
    CHECK_INT(common_data.regex_pcre_flags, 0x00080008);
    CHECK_INT(common_data.regex_posix_flags, 2);
    TOKEN(sym, S_string, "g");
    TOKEN(sym, S_closebra, "}");
    CHECK_INT(common_data.regex_pcre_flags, 0);
    CHECK_INT(common_data.regex_posix_flags, 0);
    sym_done(sym);
}

int main(void)
{
    init_common_data();
    case_counts_by_default();
    words();
    table();
    quotes();
    expressions();
    long_tokens();
    copies();
    case_flags();
    return check_result();
}
