# Everything that a tree of files can hold, twice: the second backup keeps most of the first.
mkdir -p tree/deep/er tree/empty
printf 'port: 1\n' > tree/app.yaml
: > tree/nothing
printf 'deep' > tree/deep/er/file
chmod 600 tree/deep/er/file
ln -s app.yaml tree/link
ln -s nowhere/at/all tree/dangling
ln -s . tree/deep/here
ln tree/app.yaml tree/hard
mkfifo tree/pipe
printf 'odd' > "$(printf 'tree/n\344me \360\237\232\243')"
printf 'odd' > "$(printf 'tree/latin \344')"
python3 -c "import os; os.setxattr('tree/app.yaml', 'user.golden', b'\\x00\\xff value')"
truncate -s 3M tree/sparse
printf 'in the middle' | dd of=tree/sparse bs=1 seek=2000000 conv=notrunc status=none
seq 1 9000 > tree/numbers
find tree -depth -exec touch -h -d '2025-03-04T05:06:07.123456789Z' {} +
identity
configure "tree: { files: { include: [tree] }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
seq 2 9001 > tree/numbers
rm tree/dangling
printf 'port: 2\n' > tree/app.yaml
find tree -depth -exec touch -h -d '2025-04-05T06:07:08.5Z' {} +
lifeboat backup
