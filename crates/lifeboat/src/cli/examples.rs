//! The examples under `--help`: text only.

pub(super) const TOP: &str = "\
Examples:
  lifeboat demo                        see the whole story in a minute, on a bare machine
  lifeboat init                        protect the databases in this folder
  lifeboat status                      can I recover, and to when?
  lifeboat restore shop                restore the newest backup beside the original
  lifeboat exit-codes                  what a script can rely on

WHAT is SYSTEM or SYSTEM/COMPONENT, as lifeboat.yaml names them.";

pub(super) const INIT: &str = "\
Examples:
  lifeboat init                        search this folder, ask, set everything up
  lifeboat init --yes                  the same without questions
  lifeboat init --path data/shop.db --system shop --store /mnt/backup/shop --yes
  lifeboat init --path shop.db --encrypt none --yes --no-backup
  lifeboat init --postgres postgresql://postgres@localhost/postgres --create-role --yes";

pub(super) const DEMO: &str = "\
Examples:
  lifeboat demo                        in a temporary folder, removed afterwards
  lifeboat demo --keep /tmp/story      leave everything there to look at
  lifeboat demo --json";

pub(super) const STATUS: &str = "\
Examples:
  lifeboat status
  lifeboat status shop
  lifeboat status shop/db --nagios
  lifeboat status --json               exit code 4 when an objective is missed";

pub(super) const DOCTOR: &str = "\
Examples:
  lifeboat doctor
  lifeboat doctor --json
  lifeboat --config /etc/lifeboat.yaml doctor";

pub(super) const BACKUP: &str = "\
Examples:
  lifeboat backup                      every component, in the order of recovery
  lifeboat backup shop/db
  lifeboat backup shop --reason 'before the upgrade' --tag upgrade
  lifeboat backup shop --full          compare with nothing, store everything anew
  lifeboat backup --quiet --json       for scripts";

pub(super) const FOLLOW: &str = "\
Examples:
  lifeboat follow                      every PostgreSQL cluster, until Ctrl-C or SIGTERM
  lifeboat follow shop/db --max-spool 64GiB
  lifeboat follow shop/db --once       what the server has now, for a schedule";

pub(super) const WAL: &str = "\
Examples:
  archive_command = 'lifeboat wal push shop/db %p'
  restore_command = 'exec lifeboat wal fetch --restore /srv/db/lifeboat/restore.json \"%f\" \"%p\"'
  lifeboat wal push shop/db pg_wal/000000010000000000000005
  lifeboat wal push shop/db pg_wal/00000002.history
  lifeboat wal fetch --restore /srv/db/lifeboat/restore.json 000000010000000000000005 /tmp/segment";

pub(super) const WAL_FETCH: &str = "\
Examples:
  restore_command = 'exec lifeboat wal fetch --restore /srv/db/lifeboat/restore.json \"%f\" \"%p\"'
  lifeboat wal fetch --restore /srv/db/lifeboat/restore.json 000000010000000000000005 /tmp/segment
  lifeboat wal fetch --restore /srv/db/lifeboat/restore.json 00000002.history /tmp/history
  lifeboat wal fetch --socket /srv/db/lifeboat/log 000000010000000000000005 /tmp/segment";

pub(super) const WAL_PUSH: &str = "\
Examples:
  archive_command = 'lifeboat --config /etc/lifeboat.yaml wal push shop/db %p'
  lifeboat wal push shop/db pg_wal/000000010000000000000005
  lifeboat wal push shop/db pg_wal/00000002.history
  lifeboat --config /etc/lifeboat.yaml wal push shop pg_wal/000000010000000000000006";

pub(super) const COPY: &str = "\
Examples:
  lifeboat copy --to s3-eu             bring s3-eu what it missed while it was away
  lifeboat copy shop/db --from disk --to usb --backup all
  lifeboat copy shop --to /mnt/usb/shop --backup 12  a folder that the configuration does not know";

pub(super) const TENANT_MAP: &str = "\
Examples:
  lifeboat tenant-map tartware         a proposal: look at every line, and save it as the file that `map` names
  lifeboat tenant-map tartware/db --check
  lifeboat tenant-map tartware --json";

pub(super) const LIST: &str = "\
Examples:
  lifeboat list
  lifeboat list shop/db
  lifeboat list shop --json
  lifeboat list --from backup.tar.gz   what is in an old file of another program";

pub(super) const SHOW: &str = "\
Examples:
  lifeboat show shop
  lifeboat show shop/db --backup 12
  lifeboat show shop/db --backup 12-3fa9c1d2 --json";

pub(super) const IMPORT: &str = "\
Examples:
  lifeboat import backups/devops_hub_backup_20260112_120000.tar.gz --as hub/db
  lifeboat import old.db.gz --as shop/db --moment 2026-01-12T12:00:00Z
  lifeboat import backup.sql.enc --as shop/db --reason audit
  lifeboat import tartware_20260112_120000.dump --as tartware/db

What it is, its content says. Passphrases come from `keys: { NAME: { openssl: … } }` and BACKUP_ENCRYPTION_KEY.";

pub(super) const POINTS: &str = "\
Examples:
  lifeboat points
  lifeboat points shop/db
  lifeboat points shop --json";

pub(super) const CHECK: &str = "\
Examples:
  lifeboat check shop                  on a copy, restored from the newest backup and removed afterwards
  lifeboat check shop/db --on /tmp/restored.db
  lifeboat check tartware/db --on tartware_recovery    the `checks` of the configuration, in PostgreSQL
  lifeboat check tartware --probes     the live application, by the `probes` of the system
  lifeboat check shop --json";

pub(super) const UNDELETE: &str = "\
Examples:
  lifeboat undelete tartware/db --tables rooms,guests --after 2026-11-21T14:05:00Z --where tenant_id=7 --dry-run
  lifeboat undelete tartware/db --tables rooms --after 2026-11-21T14:05:00Z --until 2026-11-21T14:10:00Z
  lifeboat undelete --undo 20261121T142003-9f3a2c

`soft_delete: { column: deleted_at, also: [deleted_by] }` beside `url` says how rows are marked. Triggers stay on.";

pub(super) const RESTORE: &str = "\
Examples:
  lifeboat restore shop                the newest backup, beside the original
  lifeboat restore shop --dry-run      only the plan
  lifeboat restore shop/db --before 2026-11-21T02:00:00Z --to /tmp/shop.db
  lifeboat restore shop/db --backup 12 --in-place
  lifeboat restore tartware/db --from old.sql.gz --to tartware_old
  lifeboat restore undo 20261121T021003-9f3a2c

Subcommands:
  lifeboat restore undo ID
  lifeboat restore export WHAT --to FILE [--backup ID]";

pub(super) const UNDO: &str = "\
Examples:
  lifeboat restore undo 20261121T021003-9f3a2c
  lifeboat restore undo 20261121T021003-9f3a2c --json
  lifeboat --config /etc/lifeboat.yaml restore undo 20261121T021003-9f3a2c";

pub(super) const EXPORT: &str = "\
Examples:
  lifeboat restore export shop --to /tmp/shop.db
  lifeboat restore export shop/db --to /tmp/shop-12.db --backup 12
  lifeboat restore export shop/db --to shop.db --json
  lifeboat restore export tartware/db --format pg_dump --to tartware.dump
  lifeboat restore export tartware/db --format csv --to tartware";

pub(super) const VERIFY: &str = "\
Examples:
  lifeboat verify                      restore the newest backup of everything into a scratch folder and check it
  lifeboat verify shop --all --level hash
  lifeboat verify shop/db --backup 12 --level decrypt
  lifeboat verify --level hash --budget 20GB
  lifeboat verify --level list         the quickest look
  lifeboat verify --due                what the configuration wants to be proven by now; for cron or a timer
  lifeboat verify shop --level app     of a PostgreSQL cluster: indexes, rows, and what the configuration asks for";

pub(super) const STORE: &str = "\
Examples:
  lifeboat store check
  lifeboat store setup s3-eu --print
  lifeboat store setup s3-eu
  lifeboat store extend-lock s3-eu";

pub(super) const STORE_SETUP: &str = "\
Examples:
  lifeboat store setup                 every store of the configuration
  lifeboat store setup s3-eu --print   the commands and the policies of both credentials
  lifeboat store setup s3-eu --json";

pub(super) const STORE_CHECK: &str = "\
Examples:
  lifeboat store check
  lifeboat store check s3-eu
  lifeboat store check --json          exit code 1 when something is bad";

pub(super) const STORE_CHILL: &str = "\
Examples:
  lifeboat store chill                 weekly, after prune
  lifeboat store chill s3-eu
  lifeboat store chill s3-eu --json";

pub(super) const STORE_EXTEND_LOCK: &str = "\
Examples:
  lifeboat store extend-lock           daily, on a host that does not write backups
  lifeboat store extend-lock s3-eu
  lifeboat store extend-lock s3-eu --json";

pub(super) const AUDIT: &str = "\
Examples:
  lifeboat audit list                  what was done here and on other machines
  lifeboat audit verify                nothing edited, removed or reordered? Exit code 5 otherwise
  lifeboat audit ship                  bring the stores the records that they lack";

pub(super) const AUDIT_VERIFY: &str = "\
Examples:
  lifeboat audit verify
  lifeboat audit verify shop/db
  lifeboat audit verify --json         exit code 5 when anything is wrong";

pub(super) const AUDIT_LIST: &str = "\
Examples:
  lifeboat audit list
  lifeboat audit list shop --failed --since 7d
  lifeboat audit list shop/db --verb restore --verb undo
  lifeboat audit list --since 2026-11-21T00:00:00Z --json";

pub(super) const AUDIT_SHIP: &str = "\
Examples:
  lifeboat audit ship
  lifeboat audit ship shop
  lifeboat audit ship shop/db --json";

pub(super) const CATALOG: &str = "\
Examples:
  lifeboat catalog rebuild
  lifeboat catalog rebuild shop
  lifeboat catalog rebuild --json";

pub(super) const CATALOG_REBUILD: &str = "\
Examples:
  lifeboat catalog rebuild             on a new machine: what do the stores say was proven?
  lifeboat catalog rebuild shop/db
  lifeboat catalog rebuild --json";

pub(super) const CONFIG: &str = "\
Examples:
  lifeboat config check
  lifeboat config show
  lifeboat config schema > lifeboat.schema.json";

pub(super) const CONFIG_CHECK: &str = "\
Examples:
  lifeboat config check
  lifeboat --config /etc/lifeboat.yaml config check
  lifeboat config check --json         exit code 4 when the plan cannot keep what it promises
  lifeboat config check --explain rpo-missed";

pub(super) const CONFIG_SHOW: &str = "\
Examples:
  lifeboat config show
  lifeboat config show --json
  lifeboat --config /etc/lifeboat.yaml config show";

pub(super) const CONFIG_SCHEMA: &str = "\
Examples:
  lifeboat config schema
  lifeboat config schema > lifeboat.schema.json
  lifeboat config schema --json";

pub(super) const KEY: &str = "\
Examples:
  lifeboat key new /media/usb/lifeboat-key.txt
  lifeboat key list
  lifeboat key check";

pub(super) const KEY_LIST: &str = "\
Examples:
  lifeboat key list
  lifeboat key list shop/db
  lifeboat key list --json";

pub(super) const KEY_ADD: &str = "\
Examples:
  lifeboat key add age19urs5r75kukghtxsex34defptr4j9m6geavqk8tpzufazhypestsu57tyc
  lifeboat key add 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN alice' shop
  lifeboat key add age19urs5r75kukghtxsex34defptr4j9m6geavqk8tpzufazhypestsu57tyc shop/db";

pub(super) const KEY_REMOVE: &str = "\
Examples:
  lifeboat key remove age19urs5r75kukghtxsex34defptr4j9m6geavqk8tpzufazhypestsu57tyc
  lifeboat key remove 0123456789abcdef
  lifeboat key remove 0123456789abcdef shop/db";

pub(super) const KEY_ROTATE: &str = "\
Examples:
  lifeboat key rotate
  lifeboat key rotate shop
  lifeboat key rotate shop/db";

pub(super) const KEY_DERIVE: &str = "\
Examples:
  lifeboat key derive
  lifeboat key derive --json
  lifeboat key derive > identity.txt";

pub(super) const KEY_NEW: &str = "\
Examples:
  lifeboat key new lifeboat-key.txt
  lifeboat key new /media/usb/lifeboat-key.txt
  lifeboat key new --passphrase lifeboat-key.txt";

pub(super) const KEY_CHECK: &str = "\
Examples:
  lifeboat key check
  lifeboat key check --json
  lifeboat --config /etc/lifeboat.yaml key check";

pub(super) const COMPLETIONS: &str = "\
Examples:
  lifeboat completions bash > /etc/bash_completion.d/lifeboat
  lifeboat completions zsh > ~/.zfunc/_lifeboat
  lifeboat completions fish > ~/.config/fish/completions/lifeboat.fish";

pub(super) const EXIT_CODES: &str = "\
Examples:
  lifeboat exit-codes
  lifeboat exit-codes --json
  lifeboat backup; echo $?";

pub(super) const DIFF: &str = "\
Examples:
  lifeboat diff 11 latest shop             what changed since backup 11
  lifeboat diff latest live shop/db        what would be lost by going back
  lifeboat diff 11 12 shop --counts        row counts alone; restores nothing
  lifeboat diff 11 live shop --table orders --samples 50 --json";

pub(super) const MAN: &str = "\
Examples:
  lifeboat man --to /usr/local/share/man/man1
  lifeboat man --to man
  lifeboat man --to man --json";

pub(super) const PROMOTE: &str = "\
Examples:
  lifeboat restore promote 20261121T021003-a1b2c3
  lifeboat restore promote 20261121T021003-a1b2c3 --yes
  lifeboat restore promote 20261121T021003-a1b2c3 --reason checked --json";

pub(super) const PRUNE: &str = "\
Examples:
  lifeboat prune --dry-run             why does each backup stay or go, and what space would come back?
  lifeboat prune                       condemn what no rule keeps; delete what was condemned 48 h ago
  lifeboat prune shop/db --store disk
  lifeboat prune --grace 7d --json
  lifeboat prune --report              each week: is everything there that the rules promise?";

pub(super) const HOLD: &str = "\
Examples:
  lifeboat hold add shop --all --reason incident-7
  lifeboat hold list
  lifeboat hold release 3fa9c1d2";

pub(super) const HOLD_ADD: &str = "\
Examples:
  lifeboat hold add shop/db --backup latest --reason audit --for 90d
  lifeboat hold add shop/db --backup 12 --reason audit
  lifeboat hold add shop --all --reason incident-7";

pub(super) const HOLD_LIST: &str = "\
Examples:
  lifeboat hold list
  lifeboat hold list shop
  lifeboat hold list --json";

pub(super) const HOLD_RELEASE: &str = "\
Examples:
  lifeboat hold release 3fa9c1d2       the beginning of its id is enough
  lifeboat hold release 3fa9c1d2 --json
  lifeboat hold release 3fa9c1d2 --quiet";

pub(super) const DRILL: &str = "\
Examples:
  lifeboat drill                       every component: its newest moment, in the order of recovery
  lifeboat drill shop/db --point random
  lifeboat drill shop --plan monthly   the one that `drills` of the configuration calls so
  lifeboat drill shop --from offsite --manual 'the orders page shows today'
  lifeboat drill report --format html --to drill.html
  lifeboat drill report --table        all of them, one line each";

pub(crate) const DRILL_REPORT: &str = "\
Examples:
  lifeboat drill report                what came of the newest
  lifeboat drill report 3f9a1c --format markdown
  lifeboat drill report --format html --to drill.html
  lifeboat drill report --table";

pub(crate) const DRILL_TICK: &str = "\
Examples:
  lifeboat drill tick 3f9a1c 1
  lifeboat drill tick 3f9a1c 'the orders page shows today' --note 'order 4711 is there'
  lifeboat drill tick 3f9a1c 2 --failed --by erin";

pub(crate) const DRILL_APPROVE: &str = "\
Examples:
  lifeboat drill approve 3f9a1c
  lifeboat drill approve 3f9a1c --by frida --note 'read with the auditor'
  lifeboat drill approve 3f9a1c --refuse --note 'the orders page was not looked at'";

pub(crate) const DRILL_ACTION: &str = "\
Examples:
  lifeboat drill action 3f9a1c 'give the server more memory' --owner ada
  lifeboat drill action 3f9a1c 'a second pair of eyes on the key' --owner erin --due 2026-12-01
  lifeboat drill action 3f9a1c 'repeat with the new release' --owner ada --due 2027-01-15 --by frida";

pub(crate) const DRILL_DONE: &str = "\
Examples:
  lifeboat drill done 3f9a1c 1
  lifeboat drill done 3f9a1c 2 --by erin --note 'in the safe since Tuesday'
  lifeboat drill done 3f9a1c 3 --json";

pub(crate) const DRILL_ACTIONS: &str = "\
Examples:
  lifeboat drill actions               what is open, of all drills; exit code 4 where something is overdue
  lifeboat drill actions --all
  lifeboat drill actions --json";

pub(super) const CHECKLIST: &str = "\
Examples:
  lifeboat checklist
  lifeboat checklist shop/quarterly
  lifeboat checklist shop --json       exit code 4 when a line does not hold";

pub(crate) const CHECKLIST_TICK: &str = "\
Examples:
  lifeboat checklist tick shop/quarterly 4
  lifeboat checklist tick shop/quarterly 'the team is trained' --by ada --note 'course of May'
  lifeboat checklist tick shop/quarterly 4 --failed --note 'two people left'";

pub(super) const KIT: &str = "\
Examples:
  lifeboat kit
  lifeboat kit --format html --to kit.html    print it, write the rest by hand, and put it beside the key
  lifeboat kit --to kit.md

Stores get a kit of their own with the backups, for `lifeboat bootstrap`; this page is for people.";

pub(super) const BOOTSTRAP: &str = "\
Examples:
  lifeboat bootstrap /mnt/usb/lifeboat --key /mnt/key/shop-key.txt
  lifeboat bootstrap s3://example-lifeboat/shop --key shop-key.txt --to /srv/rescue
  lifeboat bootstrap /mnt/usb/lifeboat --key shop-key.txt --instance ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a
  lifeboat bootstrap /mnt/usb/lifeboat --key shop-key.txt --yes --json

A bucket is reached with what the programs of its cloud use: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL;
GOOGLE_APPLICATION_CREDENTIALS; AZURE_STORAGE_ACCOUNT_KEY or AZURE_CLIENT_ID and what belongs to it.";
