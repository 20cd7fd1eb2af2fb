/*
 * service_port.c -- one port of a service, made and removed with the service's ports and addresses; policies
 * attach to it.
 */
#include "control/resources/shared.h"

static const struct field fields[] = {
	TEXT(struct service_port_doc, serviceId, IMMUTABLE, RANGE(1, 64),
		REFERS("service"), DOC("Service it belongs to.")),
	TEXT(struct service_port_doc, gatewayId, READ_ONLY, RANGE(1, 64), REFERS("gateway"),
		DOC("Gateway of the service.")),
	TEXT(struct service_port_doc, name, RANGE(1, 63), FORMAT(format_title), EXAMPLE("\"http\""),
		DOC("Name, unique in the service.")),
	INT(struct service_port_doc, port, REQUIRED, IMMUTABLE, RANGE(1, 65535), EXAMPLE("9001"),
		DOC("Port number.")),
	CHOICE(struct service_port_doc, protocol, service_protocols, DEFAULT("\"HTTP\""), ANY_CASE,
		DOC("Protocol of the port.")),
	FIELDS_END
};

static const char *const read_only[] = { "gatewayId", NULL };

const struct resource_class service_port_class = {
	.kind = RESOURCE_SERVICE_PORT,
	.name = "servicePort",
	.noun = "ServicePort",
	.plural = "ServicePorts",
	.attach_type = "ServicePort",
	.id_field = "servicePortId",
	.id_prefix = "sp-",
	.path = "/api/v1/services/{serviceId}/ports",
	.scope = { "serviceId" },
	.has_unique_name = true,
	.read_only = read_only,
	.fields = fields,
	.size = sizeof(struct service_port_doc),
	.doc = "A port of a service.",
};
