/* registry.c -- the list of all policy types, made from policies.def. */
#include "proxy/policy.h"

#define POLICY(object) extern const struct policy_class object;
#include "policy/policies.def"
#undef POLICY

#define POLICY(object) &object,
const struct policy_class *const policy_classes[] = {
#include "policy/policies.def"
	NULL
};
#undef POLICY

const unsigned policy_class_count = sizeof(policy_classes) / sizeof(policy_classes[0]) - 1;

const struct policy_class *policy_class_find(struct str name)
{
	for (unsigned i = 0; i < policy_class_count; i++)
		if (str_equal(str_of(policy_classes[i]->name), name))
			return policy_classes[i];
	return NULL;
}

unsigned policy_class_index(const struct policy_class *class)
{
	unsigned i = 0;

	while (policy_classes[i] != class) {
		BUG_ON(!policy_classes[i]);
		i++;
	}
	return i;
}
