# What the scenarios of the golden repositories share: each runs behind this in an empty folder, with the instance's public key in INSTANCE
# and the folder of our Python scripts in TOOLS.
# It leaves `lifeboat.yaml`, the folder `store` (and `second`) and the folder `keys`, which are kept.
set -eu
umask 022
TZ=UTC
export TZ
mkdir keys store second
KEYS='' MORE='' SECOND=''
ROWS='WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)'

# db FILE SQL: runs SQL.
db() { sqlite3 -bail "$1" "$2" > /dev/null; }

# new_key FILE: makes a private key, prints its public half.
new_key() { lifeboat key new "$1" | grep -o 'age1[a-z0-9]*' | head -n 1; }

# identity: one private key, which opens everything.
identity() { KEYS="keys: { main: { age: { recipients: [$(new_key keys/identity.txt)], identity: { file: keys/identity.txt } } } }"; }

# configure COMPONENTS: writes lifeboat.yaml.
configure() {
    cat > lifeboat.yaml <<YAML
version: 1
instance: { name: golden, state_dir: state, timezone: UTC }
instances: { golden: "$INSTANCE" }
$KEYS
$MORE
stores:
  disk: { fs: { path: store } }
  $SECOND
systems:
  golden:
    components:
      $1
YAML
    lifeboat store setup disk > /dev/null
}

# on_terminal ANSWER COMMAND…: runs a command on a terminal and types the answer at each prompt.
on_terminal() { python3 "$TOOLS/on_terminal.py" "$@"; }

# older FOLDER: everything in it was stored three days ago.
older() { find "$1" -type f -exec touch -d '3 days ago' {} +; }
