"""The HTTP service: `lastresort serve`, or `lastresort.server.app.create_app` in a process of one's own. Needs the extra `serve`."""
