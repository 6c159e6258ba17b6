# bash completion for iot-sftp; made by deploy/generate.py
_iot_sftp() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' word words=''
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        word=${command:+$command }$word
        case $word in put|get|sync|ls|stat|exists|mv|rm|rmdir|mkdir) command=$word ;; esac
    done
    COMPREPLY=()
    case $prev in
        --part-name) words='owned exact' ;;
        --verify) words='size timestamp tail full' ;;
        --proof) words='size tail full' ;;
        --server-durability) words='fsync trust' ;;
        --host|-H) mapfile -t COMPREPLY < <(compgen -A hostname -- "$cur"); return ;;
        --env-file|--state-dir|--key-file|--key|-i|--key-passphrase-file|--prompt-file|--proxy-password-file|--known-hosts|--password-file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
        --attempts|--backoff-s|--backoff-cap-s|--max-rate|--part-suffix|--tail-size|--publish-grace-s|--checkpoint-bytes|--checkpoint-s|--stale-part-s|--owner-tag|--prompt-command|--ssh-config|--proxy|--bind-address|--bind-interface|--host-key|--connect-timeout-s|--link-deadline-s|--server-reply-s|--keepalive-s|--chunk-size|--slots|--max-in-flight-bytes|--ciphers|--congestion|--port|-P|--user|-u|--adopt-partial|--sha256|--max-remove) return ;;
    esac
    if [ -n "$words" ]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    case $command in
        '') words='put get sync ls stat exists mv rm rmdir mkdir' ;;
        put) words='-r --recursive -T --no-target-directory --update -n --dry-run --restart --adopt-partial --sha256' ;;
        get) words='-r --recursive -T --no-target-directory --update -n --dry-run --restart --sha256 --print-sha256' ;;
        sync) words='--prune --max-remove --allow-empty -n --dry-run --restart --sha256' ;;
        ls) words='-l --long -a --all -R --recursive --json --files --directories -0 --null' ;;
        stat) words='--json' ;;
        exists) words='' ;;
        mv) words='-T --no-target-directory' ;;
        rm) words='-r --recursive --yes' ;;
        rmdir) words='' ;;
        mkdir) words='' ;;
    esac
    case $cur in
        -*)
            case $command in '') words='' ;; esac
            mapfile -t COMPREPLY < <(compgen -W "$words -h --help -v --verbose -q --quiet --env-file --attempts --backoff-s --backoff-cap-s --max-rate --part-suffix --part-name --make-dirs --no-make-dirs --keep-times --no-keep-times --keep-mode --no-keep-mode --replace-by-remove --no-replace-by-remove --verify --proof --tail-size --server-durability --publish-grace-s --sidecar --no-sidecar --checkpoint-bytes --checkpoint-s --stale-part-s --state-dir --owner-tag --key-file --key -i --key-passphrase-file --agent --no-agent --prompt-file --prompt-command --ssh-config --proxy --proxy-password-file --bind-address --bind-interface --known-hosts --host-key --connect-timeout-s --link-deadline-s --server-reply-s --keepalive-s --chunk-size --slots --max-in-flight-bytes --direct-write --no-direct-write --ciphers --compression --no-compression --congestion --host -H --port -P --user -u --password-file" -- "$cur") ;;
        *)
            case $command in
                '') mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur") ;;
                put|get|sync) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
            esac ;;
    esac
}
complete -F _iot_sftp iot-sftp
