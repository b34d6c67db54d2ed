# A certificate authority with a certificate and a revocation list, settings without their values, and settings in full.
mkdir ca
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj '/CN=golden CA' \
    -keyout ca/ca.key -out ca/ca.crt 2> openssl.log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=golden' -keyout ca/server.key -out server.csr 2>> openssl.log
openssl x509 -req -in server.csr -CA ca/ca.crt -CAkey ca/ca.key -CAcreateserial -CAserial serial -days 36500 -out ca/server.crt 2>> openssl.log
printf '[ca]\ndefault_ca = golden\n[golden]\ndatabase = index.txt\ndefault_md = sha256\ndefault_crl_days = 36500\n' > openssl.cnf
: > index.txt
openssl ca -config openssl.cnf -gencrl -keyfile ca/ca.key -cert ca/ca.crt -out ca/ca.crl 2>> openssl.log
mkdir settings
printf '# a comment\nexport TOKEN="a value"\nHOST=localhost\n' > settings/.env
printf 'PASSWORD=in full\n' > settings/full.env
find ca settings -depth -exec touch -d '2025-03-04T05:06:07.5Z' {} +
identity
configure "ca: { pki: { ca_keys: ['ca/*.key'], certs: ['ca/*.crt'], crl: ['ca/*.crl'], warn_expiry: 30d }, backup: { to: [disk], encrypt: main } }
      env: { files: { include: [settings/.env], env_structure: [settings/.env] }, backup: { to: [disk], encrypt: main } }
      full: { files: { include: [settings/full.env], secrets: encrypt }, backup: { to: [disk], encrypt: main } }"
lifeboat backup
