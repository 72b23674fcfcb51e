#!/bin/sh
# Tells tcprelay which addresses may connect: a backend for the MAVIS module "external".
# See mavis.cfg beside this file, and AUTHORIZATION in tcprelay.cfg(5).
#
#   mavis-hosts.sh [LIST]
#
# LIST is a file; the default is mavis-hosts.list beside this script. It is read again for each
# question, so changes apply at once. Each line is one of
#
#   permit NETWORK [TAG]     its clients are admitted, to the remotes with this tag if there is one
#   deny NETWORK             they are not
#
# where NETWORK is an IPv4 or IPv6 address, a prefix such as 192.0.2.0/24, or "local" for clients of
# UNIX-domain sockets. The first line that matches decides; if none does, the client is denied. If
# the list cannot be read or parsed, the answer is an error, and "mavis error" decides.
#
# The protocol: a question is a line "INDEX VALUE" for each attribute, and then a line "=". The
# answer has the same form, with a number after the "=": 0 for an answer, 16 if the question is not
# for this script. It must repeat the attributes that are to stay, above all SERIAL.

set -f # nothing here is a pattern for files
LC_ALL=C
export LC_ALL
list=${1:-${0%/*}/mavis-hosts.list}

# Sets "numbers" to the eight 16-bit numbers of an IPv6 address, or of ::ffff:a.b.c.d for an IPv4
# address, and "offset" to the number of bits in front of the address.
parse_address() {
    numbers=
    case $1 in
    *[!0-9a-fA-F.:]*) return 1 ;;
    *:*) offset=0 && parse_ipv6 "$1" ;;
    *.*) offset=96 && parse_ipv4 "$1" ;;
    *) return 1 ;;
    esac
}

parse_ipv4() {
    case $1 in *[!0-9.]* | .* | *. | *..*) return 1 ;; esac
    IFS=.
    # shellcheck disable=SC2086 # a list
    set -- $1
    unset IFS
    [ $# -eq 4 ] || return 1
    for number in "$@"; do
        case $number in 0?* | ????*) return 1 ;; esac
        [ "$number" -le 255 ] || return 1
    done
    numbers="0 0 0 0 0 65535 $(($1 * 256 + $2)) $(($3 * 256 + $4))"
}

parse_ipv6() {
    case $1 in
    *.* | *:::* | *::*::* | :[!:]* | *[!:]:) return 1 ;;
    *::*)
        parse_groups "${1%%::*}" || return 1
        first=$numbers missing=$((8 - count))
        parse_groups "${1#*::}" || return 1
        missing=$((missing - count))
        [ $missing -ge 1 ] || return 1
        while [ $missing -gt 0 ]; do
            first="$first 0" missing=$((missing - 1))
        done
        numbers="$first $numbers"
        ;;
    *) parse_groups "$1" && [ $count -eq 8 ] ;;
    esac
}

# Sets "numbers" and "count" from hexadecimal numbers separated by colons.
parse_groups() {
    IFS=:
    # shellcheck disable=SC2086 # a list
    set -- $1
    unset IFS
    numbers='' count=$#
    for number in "$@"; do
        case $number in '' | ?????*) return 1 ;; esac
        numbers="$numbers $((0x$number))"
    done
}

# True if the first "$bits" bits of "$client" and "$numbers" are the same.
same_prefix() {
    # shellcheck disable=SC2086 # two lists
    set -- $client $numbers
    while [ $bits -gt 0 ]; do
        mask=65535
        [ $bits -ge 16 ] || mask=$((65535 << (16 - bits) & 65535))
        [ $((($1 ^ $9) & mask)) -eq 0 ] || return 1
        shift
        bits=$((bits - 16))
    done
}

# 0 if the client is in the network, 1 if not, 2 if it is not a valid network.
matches() {
    if [ "$1" = local ]; then
        [ "$user" = local ]
        return
    fi
    parse_address "${1%%/*}" || return 2
    bits=$((128 - offset))
    case $1 in
    */*)
        length=${1#*/}
        case $length in '' | *[!0-9]* | 0?* | ????*) return 2 ;; esac
        [ "$length" -le $bits ] || return 2
        bits=$length
        ;;
    esac
    [ -n "$client" ] && [ $offset -eq $client_offset ] || return 1
    bits=$((bits + offset))
    same_prefix
}

# Adds the list's answer for "$user".
decide() {
    if [ ! -f "$list" ] || [ ! -r "$list" ]; then
        fail "$list cannot be read"
        return
    fi
    client='' client_offset=''
    if parse_address "$user"; then
        client=$numbers client_offset=$offset
    fi
    number_of_line=0
    while read -r verb network tag rest || [ -n "$verb" ]; do
        number_of_line=$((number_of_line + 1))
        case $verb in
        '' | '#'*) continue ;;
        permit | deny) ;;
        *) network= ;;
        esac
        case $tag in '#'*) tag='' rest='' ;; esac
        case $verb$tag in deny?*) network= ;; esac
        case $rest in '' | '#'*) ;; *) network= ;; esac
        matches "$network"
        case $? in
        0)
            if [ "$verb" = permit ]; then
                add "6 ACK"
                [ -z "$tag" ] || add "38 $tag"
            else
                add "6 NAK"
                add "17 line $number_of_line of the list"
            fi
            return
            ;;
        2)
            fail "$list:$number_of_line: not understood"
            return
            ;;
        esac
    done <"$list"
    add "6 NAK"
    add "17 not in the list"
}

fail() {
    printf '%s\n' "$1" >&2 # the module logs this
    add "6 ERR"
    add "17 $1"
}

add() {
    answer="$answer$1
"
}

answer='' type='' tactype='' user=''
while IFS= read -r line; do
    case $line in
    =)
        result=16
        if [ "$type $tactype" = 'TACPLUS HOST' ] && [ -n "$user" ]; then
            decide
            result=0
        fi
        printf '%s=%d\n' "$answer" $result
        answer='' type='' tactype='' user=''
        continue
        ;;
    '0 '*) type=${line#* } ;;
    '4 '*) user=${line#* } ;;
    '49 '*) tactype=${line#* } ;;
    esac
    add "$line"
done
