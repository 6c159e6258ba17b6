# bash completion for iot-spooler; made by deploy/generate.py
_iot_spooler() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' word words=''
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        word=${command:+$command }$word
        case $word in run|check|status|deliveries|quarantine\ list|quarantine\ retry|quarantine\ drop|retry|stop|start|suspend|resume|flush|demo|quarantine) command=$word ;; esac
    done
    COMPREPLY=()
    case $prev in
        --config) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --last) return ;;
    esac
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    case $command in
        '') words='run check status deliveries retry stop start suspend resume flush demo quarantine' ;;
        run) words='--drain' ;;
        check) words='--connect' ;;
        status) words='--json --watch' ;;
        deliveries) words='--json --last' ;;
        quarantine\ list) words='--json' ;;
        quarantine\ retry) words='' ;;
        quarantine\ drop) words='--yes' ;;
        retry) words='' ;;
        stop) words='--json' ;;
        start) words='--json' ;;
        suspend) words='--json' ;;
        resume) words='--json' ;;
        flush) words='--json' ;;
        demo) words='' ;;
        quarantine) words='list retry drop' ;;
    esac
    case $cur in
        -*)
            case $command in ''|quarantine) words='' ;; esac
            mapfile -t COMPREPLY < <(compgen -W "$words -h --help --config" -- "$cur") ;;
        *)
            case $command in
                ''|quarantine) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;
            esac ;;
    esac
}
complete -F _iot_spooler iot-spooler
