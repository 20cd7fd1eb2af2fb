#include "control/api.h"
struct json *openapi_document(struct arena *a)
{
	return json_new(a, JSON_OBJECT);
}
