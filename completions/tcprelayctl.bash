# Completion of tcprelayctl(8) for bash.

_tcprelayctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local commands='show remotes sessions listeners workers errors top drain disable enable weight
        kill reload stop wait'
    local command='' socket=() index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
        -s | --socket)
            socket=(-s "${COMP_WORDS[index + 1]}")
            ((index++))
            ;;
        -*) ;;
        *) [ "$command" ] || command=${COMP_WORDS[index]} ;;
        esac
    done
    case $before in
    -s | --socket)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --sort)
        mapfile -t COMPREPLY < <(compgen -W 'age bytes idle' -- "$word")
        return
        ;;
    --remote) command=drain ;;
    esac
    local words=''
    case $word in
    -*)
        words='-h --help -j --json -s --socket -V --version'
        case $command in
        sessions) words="$words --remote --client --sort --top" ;;
        drain | disable | weight) words="$words --until-reload" ;;
        stop) words="$words --no-wait" ;;
        wait) words="$words --timeout" ;;
        top) words="$words --delay --rounds" ;;
        esac
        ;;
    *)
        case $command in
        '') words=$commands ;;
        drain | disable | enable | weight)
            words=$(tcprelayctl "${socket[@]}" remotes 2>/dev/null | sed -n '2,$s/ .*//p' | tr -d '[]')
            ;;
        kill)
            words=$(tcprelayctl "${socket[@]}" sessions 2>/dev/null | sed -n '/^[0-9]*\.[0-9]*\./s/ .*//p')
            ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    # A port follows a colon, at which bash splits words.
    [ "$(type -t __ltrim_colon_completions)" != function ] || __ltrim_colon_completions "$word"
}

complete -F _tcprelayctl tcprelayctl
