"""What the tests of AiNetworkSearch share: a search service, its answers, and a route to a model with the policy on it."""
import json
import urllib.parse

from ai_kit import ai_route
from side_services import SideService, plain

PAGES = [("First page", "https://one.example/a", "One thing is said here."), ("Second page", "https://two.example/b", "Another thing.")]


def documents(provider, pages):
	"""What a service says of pages: (title, link, content)."""
	if provider == "bing":
		return {"webPages": {"value": [{"name": title, "url": link, "snippet": text} for title, link, text in pages]}}
	if provider == "google":
		return {"items": [{"title": title, "link": link, "snippet": text} for title, link, text in pages]}
	return {"pageItems": [{"title": title, "link": link, "snippet": text} for title, link, text in pages]}


def escape(text):
	return text.replace("&", "&amp;").replace("<", "&lt;")


def feed(pages):
	entries = "".join(f"<entry><id>{escape(link)}</id><title>{escape(title)}</title><summary>{escape(text)}</summary></entry>"
		for title, link, text in pages)
	return f'<?xml version="1.0" encoding="UTF-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom"><title>q</title>{entries}</feed>'.encode()


def answer_of(provider, pages=PAGES):
	if provider == "arxiv":
		return plain(200, [("Content-Type", "application/atom+xml")], feed(pages))
	return plain(200, [("Content-Type", "application/json")], json.dumps(documents(provider, pages)).encode())


class Engine(SideService):
	"""A search service. `find(pages)`: what it finds from now on."""

	def __init__(self, provider="bing", **options):
		super().__init__(answer_of(provider), **options)
		self.provider = provider

	def find(self, pages):
		self.answer = answer_of(self.provider, pages)

	@property
	def query(self):
		"""The parameters of the last request."""
		return dict(urllib.parse.parse_qsl(self.last.target.partition("?")[2], strict_parsing=True))


def search_config(engine, provider="bing", **more):
	return {"enable": True, "provider": provider, "apiKey": "search-key", "endpoint": engine if isinstance(engine, str) else engine.url + "/find",
		**more}


def searched(gw, model, engine, **more):
	"""A new route to the model with the policy; `base`, `attachment`."""
	route = ai_route(gw, model)
	route.attachment = gw.attach("AiNetworkSearch", search_config(engine, **more), to=route)
	return route
