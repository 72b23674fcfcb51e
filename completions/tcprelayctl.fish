# Completion of tcprelayctl(8) for fish.

function __tcprelayctl_remotes
    tcprelayctl remotes 2>/dev/null | sed -n '2,$s/ .*//p' | tr -d '[]'
end

function __tcprelayctl_sessions
    tcprelayctl sessions 2>/dev/null | sed -n '/^[0-9]*\.[0-9]*\./s/ .*//p'
end

set -l commands show remotes sessions listeners workers errors top drain disable enable weight kill reload stop wait
complete -c tcprelayctl -f
complete -c tcprelayctl -s h -l help -d 'Show the commands'
complete -c tcprelayctl -s j -l json -d 'Show answers as JSON'
complete -c tcprelayctl -s s -l socket -r -F -d 'Control socket'
complete -c tcprelayctl -s V -l version -d 'Show the version'
set -l first "not __fish_seen_subcommand_from $commands"
complete -c tcprelayctl -n $first -a show -d 'Totals, remotes, listeners and processes'
complete -c tcprelayctl -n $first -a remotes -d 'Show the remotes'
complete -c tcprelayctl -n $first -a sessions -d 'Show the sessions'
complete -c tcprelayctl -n $first -a listeners -d 'Show the listeners'
complete -c tcprelayctl -n $first -a workers -d 'Show the processes'
complete -c tcprelayctl -n $first -a errors -d 'Show the last errors'
complete -c tcprelayctl -n $first -a top -d 'A live view'
complete -c tcprelayctl -n $first -a drain -d 'Give a remote no new sessions'
complete -c tcprelayctl -n $first -a disable -d 'Give a remote no sessions'
complete -c tcprelayctl -n $first -a enable -d 'Take drain or disable back'
complete -c tcprelayctl -n $first -a weight -d 'Change the weight of a remote'
complete -c tcprelayctl -n $first -a kill -d 'End sessions'
complete -c tcprelayctl -n $first -a reload -d 'Read the configuration again'
complete -c tcprelayctl -n $first -a stop -d 'End the service'
complete -c tcprelayctl -n $first -a wait -d 'Wait until former workers are gone'
complete -c tcprelayctl -n '__fish_seen_subcommand_from drain disable enable weight' -a '(__tcprelayctl_remotes)'
complete -c tcprelayctl -n '__fish_seen_subcommand_from drain disable weight' -l until-reload -d 'Until the next reload'
complete -c tcprelayctl -n '__fish_seen_subcommand_from kill' -a '(__tcprelayctl_sessions)'
complete -c tcprelayctl -n '__fish_seen_subcommand_from sessions' -l remote -x -a '(__tcprelayctl_remotes)'
complete -c tcprelayctl -n '__fish_seen_subcommand_from sessions' -l client -x -d 'Clients whose address contains this'
complete -c tcprelayctl -n '__fish_seen_subcommand_from sessions' -l sort -x -a 'age bytes idle'
complete -c tcprelayctl -n '__fish_seen_subcommand_from sessions' -l top -x -d 'At most so many'
complete -c tcprelayctl -n '__fish_seen_subcommand_from top' -l delay -x -d 'Seconds'
complete -c tcprelayctl -n '__fish_seen_subcommand_from top' -l rounds -x -d 'So many times'
complete -c tcprelayctl -n '__fish_seen_subcommand_from stop' -l no-wait -d 'Only begin to end the service'
complete -c tcprelayctl -n '__fish_seen_subcommand_from wait' -l timeout -x -d 'Seconds'
