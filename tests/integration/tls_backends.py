"""Upstreams that speak TLS: nginx as others run it, and servers of our own that misbehave or look closely."""
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading

from gw import free_port
from scripted import take_over
from wire import wait_until

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

# What the server saw of the connection and the request.
SEEN = ('{"sni":"$ssl_server_name","host":"$http_host","client":"$ssl_client_s_dn","verify":"$ssl_client_verify","reused":"$ssl_session_reused",'
	'"version":"$ssl_protocol","alpn":"$ssl_alpn_protocol","http":"$server_protocol","connection":"$connection","turn":"$connection_requests",'
	'"port":"$server_port","uri":"$request_uri"}')


class Nginx:
	"""`servers`: name → options: pair (None = in the clear), h2, client_ca, versions, more (lines). `ports[name]`: where it listens."""

	def __init__(self, servers):
		self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice-nginx-"))
		self.ports = {name: free_port() for name in servers}
		self.servers = servers
		self.write()
		self.process = subprocess.Popen([NGINX, "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder), "-e", str(self.folder / "error.log")],
			stderr=subprocess.DEVNULL)
		for port in self.ports.values():
			wait_until(lambda port=port: self.is_there(port), 20, f"nginx on {port}")

	def is_there(self, port):
		with socket.socket() as probe:
			return probe.connect_ex(("127.0.0.1", port)) == 0

	def write(self):
		parts = [self.server(name, **options) for name, options in self.servers.items()]
		(self.folder / "nginx.conf").write_text(f"""daemon off; master_process off; worker_processes 1; pid {self.folder}/pid;
events {{ worker_connections 512; }}
http {{
	access_log off; keepalive_timeout 60s; ssl_session_timeout 1h; default_type text/plain;
	client_body_temp_path {self.folder}/a; proxy_temp_path {self.folder}/b; fastcgi_temp_path {self.folder}/c; uwsgi_temp_path {self.folder}/d;
	scgi_temp_path {self.folder}/e;
	{''.join(parts)}
}}
""")

	def server(self, name, pair=None, h2=False, client_ca=None, versions="TLSv1.2 TLSv1.3", more=""):
		flags = (" ssl" if pair else "") + (" http2" if h2 else "")
		lines = [f"listen 127.0.0.1:{self.ports[name]}{flags};", more]
		if pair:
			lines += [f"ssl_certificate {pair.cert_file}; ssl_certificate_key {pair.key_file}; ssl_protocols {versions};"]
		if client_ca:
			lines += [f"ssl_client_certificate {client_ca.file}; ssl_verify_client on; ssl_verify_depth 3;"]
		lines += [f"location / {{ return 200 '{SEEN}'; }}", "location /large { alias /dev/zero; }", f"location /files/ {{ alias {self.folder}/; }}"]
		return "server {\n\t\t" + "\n\t\t".join(lines) + "\n\t}\n"

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.process.terminate()
		try:
			self.process.wait(10)
		except subprocess.TimeoutExpired:
			self.process.kill()
			self.process.wait()
		shutil.rmtree(self.folder, ignore_errors=True)


def server_context(pair, client_ca=None, versions=None, alpn=None):
	context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
	context.load_cert_chain(pair.cert_file, pair.key_file)
	if client_ca:
		context.load_verify_locations(client_ca.file)
		context.verify_mode = ssl.CERT_REQUIRED
	if versions:
		context.minimum_version, context.maximum_version = versions
	if alpn:
		context.set_alpn_protocols(alpn)
	return context


class TlsScripted:
	"""Like scripted.Scripted behind TLS: calls `script` with each connection (a wire.Connection whose socket is an SSLSocket).
	`names`: what each hello asked for. `refused`: handshakes that failed."""

	def __init__(self, script, context):
		self.script = script
		self.context = context
		self.names, self.refused, self.errors, self.connections = [], [], [], []
		context.sni_callback = lambda sock, name, _: self.names.append(name)
		self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
		self.port = self.listener.getsockname()[1]
		threading.Thread(target=self.accept, daemon=True).start()

	def accept(self):
		while True:
			try:
				sock = self.listener.accept()[0]
			except OSError:
				return
			threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

	def serve(self, sock):
		sock.settimeout(20)
		try:
			secured = self.context.wrap_socket(sock, server_side=True)
		except OSError as error:
			self.refused.append(error)
			sock.close()
			return
		connection = take_over(secured)
		self.connections.append(connection)
		try:
			with connection:
				self.script(connection)
		except Exception as error:    # the test looks at it
			self.errors.append(error)

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.listener.close()
		for connection in self.connections:
			connection.close()
