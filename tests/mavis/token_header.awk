# Makes compat/include/mavis/token.h from ffi/tokens.tsv (number, enum name, text, length):
#   awk -f tests/mavis/token_header.awk ffi/tokens.tsv > compat/include/mavis/token.h
BEGIN {
    FS = "\t"
    print "/* The reserved words of the configuration language, numbered. Made from ffi/tokens.tsv by"
    print " * tests/mavis/token_header.awk; do not edit. Modules have these numbers compiled in. */"
    print "#ifndef MAVIS_TOKEN_H"
    print "#define MAVIS_TOKEN_H"
    print ""
    print "#include <misc/str.h>"
    print ""
    print "MAVIS_BEGIN_DECLS"
    print ""
    print "/* Names this numbering; see mavis_check_version(). */"
    print "#define MAVIS_TOKEN_VERSION \"a4cf21de3aea318d7fe186cb4b1e49a0\""
    print ""
    print "enum token {"
}
NR > 1 {
    if ($1 != NR - 2) {
        print FILENAME ":" NR ": numbers are not consecutive" > "/dev/stderr"
        exit 1
    }
    comment = $3 == "" ? "" : " /* " $3 " */"
    print "    " $2 " = " $1 "," comment
    last = $2
    count = NR - 1
}
END {
    print "    S_token_number = " count " /* of words; no word itself */"
    print "};"
    print ""
    print "/* The text of each, and an empty one at the end. */"
    print "extern str_t codestring[" count "];"
    print ""
    print "MAVIS_SIZE(enum token, token, 4);"
    print ""
    print "MAVIS_END_DECLS"
    print ""
    print "#endif"
}
