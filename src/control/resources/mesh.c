/* mesh.c -- what gateways are grouped in; "default" always exists. */
#include "control/resources/shared.h"
#include "control/write.h"

static bool check_id(struct str s, struct problem *why)
{
	return format_dns_label(s, why);
}

static const struct field fields[] = {
	TEXT(struct mesh, meshId, RANGE(1, 63), FORMAT(check_id), IMMUTABLE,
		DOC("Id in the paths of its gateways; its name when left out.")),
	TEXT(struct mesh, name, REQUIRED, RANGE(1, 512), FORMAT(format_title), DOC("Name for people.")),
	FIELDS_END
};

static bool refuse_default(struct write *w, struct resource *r, struct problem *why)
{
	(void)w;
	if (!str_equal(r->id, STR("default")))
		return true;
	return problem_of(why, PROBLEM_CONFLICT, "meshId", "the mesh \"default\" always exists");
}

const struct resource_class mesh_class = {
	.kind = RESOURCE_MESH,
	.name = "mesh",
	.noun = "Mesh",
	.plural = "Meshes",
	.id_field = "meshId",
	.id_prefix = "mesh-",
	.path = "/v2/meshes",
	.has_unique_name = true,
	.chooses_id = true,
	.fields = fields,
	.size = sizeof(struct mesh),
	.doc = "A group of gateways; the mesh \"default\" always exists.",
	.deleting = refuse_default,
};
