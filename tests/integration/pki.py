"""Certificates made by openssl when a test asks for them: authorities, servers, clients, expired and garbled ones."""
import pathlib
import subprocess
import tempfile


def openssl(*arguments, data=None):
	done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=False)
	assert done.returncode == 0, done.stderr.decode()
	return done.stdout


def kind_of(name):
	return name.split(":")[0] if name.startswith(("IP:", "URI:")) else "DNS"


class Pair:
	"""A certificate with its key. `file` holds both, for clients."""

	def __init__(self, folder, name, cert, key):
		self.name = name
		self.cert_file, self.key_file, self.file = cert, key, folder / f"{cert.stem}.both"
		self.cert, self.key = cert.read_text(), key.read_text()
		self.file.write_text(self.cert + self.key)


def self_signed(*names):
	authority = Authority("Nobody")
	return authority, authority.make(names[0], ["-x509", "-days", "10", "-addext",
		f"subjectAltName={','.join(f'DNS:{name}' for name in names)}"], "CA:FALSE")


class Authority:
	def __init__(self, name="Test CA", above=None):
		self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice-pki-"))
		self.name = name
		self.n = 0
		self.above = above
		self.pair = above.issue(name, ca=True) if above else self.make(name, ["-x509", "-days", "30"], "CA:TRUE")
		self.cert, self.file = self.pair.cert, str(self.pair.cert_file)

	def new_key(self, kind):
		self.n += 1
		path = self.folder / f"{self.n}.key"
		options = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else \
			["-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{kind}"]
		openssl("genpkey", *options, "-out", str(path))
		return path

	def make(self, name, options, constraint):
		key = self.new_key("ec")
		cert = self.folder / f"{self.n}.crt"
		openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-addext", f"basicConstraints=critical,{constraint}",
			*options, "-out", str(cert))
		return Pair(self.folder, name, cert, key)

	def issue(self, *names, days=10, key="ec", ca=False, start=None, end=None, common_only=False):
		"""A certificate for these names: DNS names, "IP:127.0.0.1", "URI:spiffe://a/b". `common_only`: the first one as common name
		and nowhere else. `start`, `end`: as openssl ca takes them (YYYYMMDDHHMMSSZ)."""
		path = self.new_key(key)
		request, cert, extensions = (self.folder / f"{self.n}.{ending}" for ending in ("csr", "crt", "ext"))
		common = names[0] if kind_of(names[0]) == "DNS" else "server"
		openssl("req", "-new", "-key", str(path), "-subj", f"/CN={common}", "-out", str(request))
		alternatives = ",".join(name if kind_of(name) != "DNS" else f"DNS:{name}" for name in names)
		lines = ["basicConstraints=critical,CA:TRUE"] if ca else ["basicConstraints=critical,CA:FALSE"]
		lines += [] if ca or common_only else [f"subjectAltName={alternatives}"]
		extensions.write_text("\n".join(lines) + "\n")
		if not end:
			openssl("x509", "-req", "-in", str(request), "-CA", self.file, "-CAkey", str(self.pair.key_file),
				"-set_serial", str(1000 + self.n), "-days", str(days), "-extfile", str(extensions), "-out", str(cert))
		else:
			self.issue_dated(request, cert, extensions, start, end)
		return Pair(self.folder, names[0], cert, path)

	def issue_dated(self, request, cert, extensions, start, end):
		folder = self.folder / f"ca{self.n}"
		folder.mkdir()
		(folder / "index.txt").write_text("")
		(folder / "serial").write_text(f"{2000 + self.n}\n")
		config = folder / "ca.cnf"
		config.write_text(f"[ca]\ndefault_ca=d\n[d]\nnew_certs_dir={folder}\ndatabase={folder}/index.txt\nserial={folder}/serial\n"
			"default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
		openssl("ca", "-batch", "-config", str(config), "-in", str(request), "-cert", self.file, "-keyfile",
			str(self.pair.key_file), "-startdate", start, "-enddate", end, "-extfile", str(extensions), "-notext", "-out", str(cert))
